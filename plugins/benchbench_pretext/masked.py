"""Masked autoencoding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from benchbench import BadInput, Batch, Between, Objective, Task, searched

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer


@searched(mask=Between(0.5, 0.9, log=False))
class MAE(Objective):
    """Masked autoencoder (He et al. 2022, arXiv:2111.06377) for timm's vision transformers.

    The encoder reads a quarter of the patches, drawn for each image; a decoder of ``depth`` blocks
    tells the pixels of the others, each patch normalised on its own.
    """

    modalities = {"image"}
    n_views = 1
    looks_inside = True

    def __init__(
        self,
        encoder: nn.Module,
        task: Task,
        *,
        mask: float = 0.75,
        width: int = 128,
        depth: int = 2,
        heads: int = 4,
    ) -> None:
        from timm.models.vision_transformer import Block

        if not 0 < mask < 1:
            raise BadInput(f"mae: mask = {mask} should be between 0 and 1")
        if width % heads or min(width, depth, heads) < 1:
            raise BadInput(f"mae: width = {width} should be a multiple of heads = {heads}")
        patch_embed = transformer_of(encoder).patch_embed
        super().__init__()
        self.patch_size: tuple[int, int] = patch_embed.patch_size
        count = patch_embed.num_patches
        self.kept = min(max(round((1 - mask) * count), 1), count - 1)
        pixels = task.input_shape[0] * self.patch_size[0] * self.patch_size[1]
        self.inlet = nn.Linear(encoder.num_features, width)
        self.blank = nn.Parameter(0.02 * torch.randn(width))
        self.places = nn.Parameter(0.02 * torch.randn(count, width))
        self.decoder = nn.Sequential(
            *(Block(width, heads) for _ in range(depth)),
            nn.LayerNorm(width),
            nn.Linear(width, pixels),
        )

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        images = batch.views[0]
        drawn = torch.rand(len(images), len(self.places), device=images.device)
        order = drawn.argsort(1)  # the first are kept
        tokens = self.inlet(visible_tokens(encoder, images, order[:, : self.kept]))
        blank = self.blank.to(tokens.dtype).expand(len(images), len(self.places), -1)
        shuffled = torch.cat([tokens, blank[:, self.kept :]], 1)
        back = order.argsort(1)[:, :, None].expand(-1, -1, tokens.shape[2])
        told = self.decoder(shuffled.gather(1, back) + self.places).float()
        hidden = torch.ones_like(drawn).scatter(1, order[:, : self.kept], 0.0)
        return masked_error(told, normalised_patches(images, self.patch_size), hidden)


def transformer_of(encoder: nn.Module) -> VisionTransformer:
    """The one that is, or is inside, the encoder; BadInput if there is none of a plain kind."""
    from timm.models.vision_transformer import VisionTransformer

    for module in encoder.modules():
        if isinstance(module, VisionTransformer):
            return module
    raise BadInput(
        f"mae is for timm's vision transformers, such as timm(model='vit_small_patch16_224'), "
        f"not for {type(encoder).__name__}"
    )


class Keep(nn.Module):
    """In the place where a transformer may drop patches: keep those with the numbers [B, N]."""

    def __init__(self, kept: Tensor, prefix: int) -> None:
        super().__init__()
        self.kept, self.prefix = kept, prefix

    def forward(self, tokens: Tensor) -> Tensor:
        first, patches = tokens[:, : self.prefix], tokens[:, self.prefix :]
        index = self.kept[:, :, None].expand(-1, -1, tokens.shape[2])
        return torch.cat([first, patches.gather(1, index)], 1)


def visible_tokens(encoder: nn.Module, images: Tensor, kept: Tensor) -> Tensor:
    """What the transformer makes of the ``kept`` patches alone, after its last norm, [B, N, D].

    The encoder is called as it is, with whatever it does to the images before.
    """
    transformer = transformer_of(encoder)
    prefix, dropped = transformer.num_prefix_tokens, transformer.patch_drop
    caught: list[Tensor] = []
    hook = transformer.norm.register_forward_hook(lambda module, inputs, out: caught.append(out))
    transformer.patch_drop = Keep(kept, prefix)
    try:
        encoder(images)
    finally:
        transformer.patch_drop = dropped
        hook.remove()
    return caught[0][:, prefix:]


def normalised_patches(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Patches [B, N, C · h · w], row by row, each with mean 0 and variance 1 (n − 1, and 1e-6)."""
    patches = nn.functional.unfold(images, size, stride=size).mT
    mean, variance = patches.mean(2, keepdim=True), patches.var(2, keepdim=True)
    return (patches - mean) * (variance + 1e-6).rsqrt()


def masked_error(told: Tensor, wanted: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared error over the patches where ``hidden`` [B, N] is 1."""
    return ((told - wanted).square().mean(2) * hidden).sum() / hidden.sum()
