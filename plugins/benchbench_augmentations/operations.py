"""Image operations on whole batches, with parameters per sample. Nothing is random here.

Images are float32 [B, C, H, W] in [0, 1]; a parameter is a tensor [B] on the same device. Each
operation agrees with the one of the same name in torchvision.transforms.v2.functional.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601-2, as in torchvision


def resized_crop(
    images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor
) -> Tensor:
    """Cut a box of whole pixels out of each image and scale it to the image's own size.

    Bilinear with antialiasing, as two matrix products per image: rows, then columns.
    """
    rows = resize_weights(top, height, images.shape[2])
    columns = resize_weights(left, width, images.shape[3])
    return rows[:, None] @ images @ columns[:, None].mT


def resize_weights(start: Tensor, length: Tensor, size: int) -> Tensor:
    """[B, size, size]: how ``size`` pixels are made of those in [start, start + length)."""
    pixel = torch.arange(size, device=start.device, dtype=torch.float32)
    start, length = start[:, None, None].float(), length[:, None, None].float()
    scale = length / size
    centre = start + (pixel[:, None] + 0.5) * scale
    reach = scale.clamp(min=1.0)  # a triangle widens where pixels are merged
    weights = (1 - (pixel + 0.5 - centre).abs() / reach).clamp(min=0)
    weights = weights * ((pixel >= start) & (pixel < start + length))
    return weights / weights.sum(2, keepdim=True)


def horizontal_flip(images: Tensor, flipped: Tensor) -> Tensor:
    """Mirror the images for which ``flipped`` is true."""
    return torch.where(column(flipped), images.flip(-1), images)


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    return (images * column(factor)).clamp_(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    mean = luma(images).mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, column(factor)).clamp_(0, 1)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(luma(images), images, column(factor)).clamp_(0, 1)


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by ``shift`` in [-0.5, 0.5] of the full circle, in HSV space."""
    value, low = images.amax(1), images.amin(1)
    chroma = value - low
    safe = torch.where(chroma == 0, 1.0, chroma)
    red, green, blue = ((value[:, None] - images) / safe[:, None]).unbind(1)
    is_red, is_green = images[:, 0] == value, images[:, 1] == value
    hue = torch.where(is_red, blue - green, torch.where(is_green, 2 + red - blue, 4 + green - red))
    hue = hue + 6 * shift[:, None, None]
    # A channel lies between low and value by the distance of its colour on the circle of six.
    corner = torch.tensor([5.0, 3.0, 1.0], device=images.device).view(1, 3, 1, 1)
    distance = torch.remainder(hue[:, None] + corner, 6)
    part = torch.minimum(distance, 4 - distance).clamp_(0, 1)
    return (value[:, None] - chroma[:, None] * part).clamp_(0, 1)


def luma(images: Tensor) -> Tensor:
    """[B, 1, H, W]: the grey image of an RGB one; a grey image itself."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, 1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def gaussian_blur(images: Tensor, sigma: Tensor, kernel_size: int) -> Tensor:
    """Blur with reflected borders, as two matrix products per image."""
    rows = blur_weights(sigma, kernel_size, images.shape[2])
    columns = blur_weights(sigma, kernel_size, images.shape[3])
    return rows[:, None] @ images @ columns[:, None].mT


def blur_weights(sigma: Tensor, kernel_size: int, size: int) -> Tensor:
    """[B, size, size]: the kernel around every pixel, what falls outside folded back inside."""
    half = kernel_size // 2
    offset = torch.arange(-half, half + 1, device=sigma.device, dtype=torch.float32)
    kernel = (-0.5 * (offset / sigma[:, None]) ** 2).softmax(1)
    pixel = torch.arange(size, device=sigma.device)
    source = (pixel[:, None] + torch.arange(-half, half + 1, device=sigma.device)).abs()
    source = (size - 1) - ((size - 1) - source).abs()  # reflect at both ends
    taps = F.one_hot(source, size).float()  # [size, kernel_size, size]
    return torch.einsum("bk,ikj->bij", kernel, taps)


def solarize(images: Tensor, threshold: float) -> Tensor:
    return torch.where(images >= threshold, 1 - images, images)


def affine(
    images: Tensor, degrees: Tensor, translate: Tensor, scale: Tensor, shear: Tensor, padding: str
) -> Tensor:
    """Shear along x, rotate clockwise, scale and shift each image, about its centre; bilinear.

    ``degrees`` and ``shear`` are in degrees, ``translate`` [B, 2] in pixels to the right and down.
    What comes from outside is as ``padding`` says: "zeros", "border" or "reflection".
    """
    height, width = images.shape[2:]
    angle, slant = torch.deg2rad(degrees), torch.tan(torch.deg2rad(shear))
    cos, sin = torch.cos(angle), torch.sin(angle)
    # From a pixel of the view to the place in the image that it shows.
    entries = torch.stack([cos - sin * slant, cos * slant + sin, -sin, cos], 1) / scale[:, None]
    inverse = entries.view(-1, 2, 2)
    shift = -inverse @ translate[:, :, None]
    half = torch.tensor([width / 2, height / 2], device=images.device)
    theta = torch.cat([inverse * half, shift], 2) / half[:, None]
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode=padding, align_corners=False).clamp_(0, 1)


def column(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
