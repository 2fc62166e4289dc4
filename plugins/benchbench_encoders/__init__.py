"""Encoders: every timm model, and a small network for a laptop."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from benchbench import BadInput, Task, hookimpl


class SmallCNN(nn.Module):
    """Four 3 × 3 convolutions with batch norm, the first three halving the sides, then a mean.

    Made for two CPU cores: at width 24, an image of 32 × 32 takes 3 million multiply-adds. With
    ``standardise`` each image is first brought to mean 0 and deviation 1, so that a domain's
    contrast does not count (as Shu et al. 2018, arXiv:1802.08735, section 6, normalise instances).
    """

    def __init__(self, task: Task, *, width: int = 24, standardise: bool = False) -> None:
        super().__init__()
        self.standardise = standardise
        sizes = [task.input_shape[0], width, 2 * width, 4 * width, 8 * width]
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(inside, outside, 3, stride, 1, bias=False),
                    nn.BatchNorm2d(outside),
                    nn.ReLU(inplace=True),
                )
                for (inside, outside), stride in zip(pairwise(sizes), (2, 2, 2, 1), strict=True)
            )
        )
        self.num_features = sizes[-1]

    def forward(self, images: Tensor) -> Tensor:
        if self.standardise:
            mean, deviation = (f((1, 2, 3), keepdim=True) for f in (images.mean, images.std))
            images = (images - mean) / (deviation + 0.05)  # a blank image stays blank
        return self.blocks(images).mean((2, 3))


class Timm(nn.Module):
    """A timm model, which reads images normalised as its configuration says."""

    def __init__(self, model: nn.Module, mean: Tensor, std: Tensor, projection: bool) -> None:
        super().__init__()
        self.model = model
        # Where a convolution follows the pooling, that is the width of what comes out.
        pooled = getattr(model, "head_hidden_size", None) or model.num_features
        self.num_features = model.num_classes if projection else pooled
        self.register_buffer("mean", mean.view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", std.view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.model((images - self.mean) / self.std)


def timm_encoder(
    task: Task,
    *,
    model: str = "resnet18",
    pretrained: bool = False,
    small_stem: bool = False,
    projection: bool = False,
) -> nn.Module:
    """Any of timm's models without its classifier.

    ``small_stem`` gives a ResNet the stem for images of 32 × 32: a 3 × 3 convolution of stride 1
    and no pooling (He et al. 2016, section 4.2). ``pretrained`` downloads weights once.
    ``projection`` keeps the last linear map of a CLIP's image tower, into the space of its texts.
    Vision transformers read views of other sizes, too.
    """
    import timm

    channels, height, width = task.input_shape
    if not timm.is_model(model):
        near = timm.list_models(f"*{model[:6]}*")[:3] or ["resnet18", "vit_small_patch16_224"]
        raise BadInput(f"timm has no model {model!r}; it has {', '.join(near)} and more")
    options = {"in_chans": channels, "pretrained": pretrained}
    if projection and "_clip_" not in model:
        raise BadInput(f"projection is for the image towers of CLIP, not for {model}")
    if not projection:
        options["num_classes"] = 0
    sized = {"img_size": (height, width)}
    try:
        for kind in ({**sized, "dynamic_img_size": True}, sized, {}):
            try:
                network = timm.create_model(model, **kind, **options)
                break
            except TypeError:  # only transformers want a size, and not all read others
                continue
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise BadInput(f"timm cannot build {model} for {height} × {width}: {error}") from None
        reason = str(error).partition("\n")[0]
        raise BadInput(
            f"the weights of {model} are neither in the local cache nor to be downloaded "
            f"({reason}); set pretrained=False, or fetch them once where there is a network"
        ) from None
    if small_stem:
        give_small_stem(model, network, channels)
    mean, std = (torch.tensor(network.pretrained_cfg[key]) for key in ("mean", "std"))
    if len(mean) != channels:
        mean, std = mean.mean().expand(channels), std.mean().expand(channels)
    return Timm(network, mean, std, projection)


def give_small_stem(name: str, network: nn.Module, channels: int) -> None:
    """Replace the first convolution and the pooling after it; BadInput if it is no ResNet."""
    first, pool = getattr(network, "conv1", None), getattr(network, "maxpool", None)
    if not isinstance(first, nn.Conv2d) or pool is None:
        raise BadInput(f"small_stem is for timm's ResNets with one first convolution, not {name}")
    network.conv1 = nn.Conv2d(channels, first.out_channels, 3, 1, 1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()


@hookimpl
def benchbench_encoders():
    return {"small_cnn": SmallCNN, "timm": timm_encoder}
