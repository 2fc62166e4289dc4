"""What is done to images [B, C, H, W] in [0, 1], given parameters [B]. Nothing here is random.

On each image alone, every operation equals torchvision's of the same name up to float rounding.
Most change tensors of their own in place: on a CPU a new tensor costs three times the sum it holds.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def resized_crop(
    images: Tensor,
    top: Tensor,
    left: Tensor,
    height: Tensor,
    width: Tensor,
    shape: tuple[int, int],
) -> Tensor:
    """Boxes of whole pixels inside the image, brought to ``shape``: bilinear, antialiased."""
    rows = resize_weights(top, height, images.shape[2], shape[0])
    columns = resize_weights(left, width, images.shape[3], shape[1])
    return along_both_axes(rows, images, columns)


def resize_weights(start: Tensor, length: Tensor, side: int, size: int) -> Tensor:
    """How much of each input pixel (last axis) each output pixel takes: [B, size, side].

    A triangle that falls to zero within one input pixel, or one output pixel if that is larger.
    What lies outside the box is cut off, and the rest made to sum to one.
    """
    start, length = start[:, None, None], length[:, None, None]
    pixels = torch.arange(side, device=start.device) + 0.5
    step = length / size  # input pixels per output pixel
    centres = start + step * (torch.arange(size, device=start.device) + 0.5)[:, None]
    weights = (pixels - centres).abs_().div_(step.clamp(min=1)).neg_().add_(1).clamp_(min=0)
    weights *= (pixels > start) & (pixels < start + length)
    return weights.div_(weights.sum(2, keepdim=True))


def gaussian_blur(images: Tensor, sigma: Tensor, kernel_size: int) -> Tensor:
    """``sigma`` in pixels. The image is reflected at its border."""
    reach = torch.arange(kernel_size, device=images.device) - kernel_size // 2
    kernels = torch.softmax(-0.5 * (reach / sigma[:, None]) ** 2, dim=1)
    rows, columns = (band(kernels, reach, side) for side in images.shape[2:])
    return along_both_axes(rows, images, columns)


def band(kernels: Tensor, reach: Tensor, side: int) -> Tensor:
    """The kernels [B, K] as matrices [B, side, side], with the reflection folded in."""
    pixels = torch.arange(side, device=reach.device)
    beyond = (pixels + reach[:, None]).abs()
    reached = side - 1 - (side - 1 - beyond).abs()  # [K, side]
    fold = (reached[..., None] == pixels).float()
    return (kernels @ fold.flatten(1)).unflatten(1, (side, side))


def along_both_axes(rows: Tensor, images: Tensor, columns: Tensor) -> Tensor:
    """``rows @ image @ columns.T``. The weights sum to one, so only rounding can pass 1."""
    across = (images.flatten(1, 2) @ columns.mT).unflatten(1, images.shape[1:3])
    return (rows[:, None] @ across).clamp_(max=1)


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    return (images * per_image(factor)).clamp_(max=1)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    return blend(grey(images.mean((2, 3), keepdim=True)), images, factor)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    return blend(grey(images), images, factor)


def adjust_sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """From a blur over 3 × 3 pixels, which leaves the border alone, at 0, to beyond the image."""
    channels, height, width = images.shape[1:]
    if min(height, width) < 3:
        return images
    weights = torch.ones(3, 3, device=images.device)
    weights[1, 1] = 5
    kernel = (weights / 13).expand(channels, 1, 3, 3)
    blurred = images.clone()
    blurred[:, :, 1:-1, 1:-1] = F.conv2d(images, kernel, groups=channels)
    return blend(blurred, images, factor)


def grey(images: Tensor) -> Tensor:
    """Luma [B, 1, H, W], with torchvision's weights."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, dim=1)
    return (0.2989 * red).add_(0.587 * green).add_(0.114 * blue)


def blend(zero: Tensor, one: Tensor, factor: Tensor) -> Tensor:
    """From ``zero`` at factor 0 to ``one`` at factor 1, and beyond."""
    factor = per_image(factor)
    return (one * factor).add_(zero * (1 - factor)).clamp_(0, 1)


def adjust_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of RGB images by ``turn`` circles, keeping HSV's saturation and value.

    In sixths of the circle: a channel is at the pixel's highest value up to one from the
    channel's own hue (0, 2, 4), at the lowest from two on, and linear in between.
    """
    red, green, blue = images.unbind(1)
    high, low = images.amax(1), images.amin(1)
    chroma = high - low
    per_chroma = chroma.clamp(min=torch.finfo(chroma.dtype).tiny).reciprocal_()
    of_blue = (red - green).mul_(per_chroma).add_(4)
    of_green = (blue - red).mul_(per_chroma).add_(2)
    of_red = (green - blue).mul_(per_chroma)
    # Where the channel is not the highest, the sign is 1, and lerp_ gives the other: a quicker
    # torch.where.
    hue = of_red.lerp_(of_green.lerp_(of_blue, (high - green).sign_()), (high - red).sign_())
    hue.add_(6 * turn[:, None, None]).remainder_(6)
    own = 2 * torch.arange(3, device=images.device)[:, None, None]
    nearness = (hue[:, None] - own).abs_().sub_(3).abs_()  # 3 at the channel's own hue, 0 opposite
    return nearness.sub_(1).clamp_(0, 1).mul_(chroma[:, None]).add_(low[:, None])


def change_where(
    chosen: Tensor, images: Tensor, change: Callable[..., Tensor], *parameters: Tensor
) -> Tensor:
    """``change`` of the images that are chosen, bool [B], and the others as they are.

    ``change`` takes images and their parameters [B], and keeps their shape. On the CPU it is given
    the chosen ones only; elsewhere all, since to know their number is to wait for the device.
    """
    if images.device.type != "cpu":
        return torch.where(per_image(chosen), change(images, *parameters), images)
    rows = chosen.nonzero().flatten()
    some = (tensor.index_select(0, rows) for tensor in (images, *parameters))
    return images.clone().index_copy_(0, rows, change(*some))


def invert_where(chosen: Tensor, images: Tensor) -> Tensor:
    """``1 - images`` where chosen, else ``images``; faster on a CPU than torch.where."""
    return (chosen.float() - images).abs_()


def affine(
    images: Tensor,
    angle: Tensor,
    right: Tensor,
    down: Tensor,
    scale: Tensor,
    shear: Tensor,
    *,
    fill: float,
    edge: bool,
) -> Tensor:
    """About the centre, bilinear. Angle and shear along x in degrees, clockwise; shifts in pixels.

    Beyond the image lies ``fill`` or, with ``edge``, the nearest pixel of its border. Of a
    pixel half outside the image has half; where torchvision is given a fill, half of that half.
    """
    height, width = images.shape[2:]
    angle, right, down, scale, shear = (
        parameter[:, None, None] for parameter in (angle, right, down, scale, shear)
    )
    cos, sin, skew = angle.deg2rad().cos(), angle.deg2rad().sin(), shear.deg2rad().tan()
    x = torch.arange(width, device=images.device) - (width - 1) / 2 - right
    y = torch.arange(height, device=images.device)[:, None] - (height - 1) / 2 - down
    source_x = ((cos - sin * skew) * x + (sin + cos * skew) * y) / scale
    source_y = (cos * y - sin * x) / scale
    grid = torch.stack((source_x * (2 / width), source_y * (2 / height)), dim=3)
    padding = "border" if edge else "zeros"
    moved = F.grid_sample(images - fill, grid, padding_mode=padding, align_corners=False)
    return moved.add_(fill).clamp_(0, 1)


def per_image(parameter: Tensor) -> Tensor:
    return parameter[:, None, None, None]
