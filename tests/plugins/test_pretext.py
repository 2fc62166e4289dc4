"""Masked autoencoding on a real vision transformer, and rotation prediction."""

import pytest
import torch
import torch.nn.functional as F
from losses import normal

from benchbench import BadInput, Batch, Task
from benchbench.extension.conformance.fixtures import TASK, Probe, TokenProbe
from benchbench_encoders import timm_encoder
from benchbench_pretext import MAE, RotNet
from benchbench_pretext.masked import normalised_patches, visible_tokens
from benchbench_pretext.rotation import turned


def test_turned_images_are_those_of_rot90():
    images, quarters = normal(8, 3, 4, 4), torch.arange(8) % 4
    for image, quarter, after in zip(images, quarters, turned(images, quarters), strict=True):
        assert torch.equal(after, torch.rot90(image, int(quarter), (1, 2)))


def test_rotation_is_cross_entropy_with_the_quarters_drawn():
    torch.manual_seed(0)
    encoder = Probe()
    objective = RotNet(encoder, TASK)
    images = torch.rand(9, 3, 16, 16)
    torch.manual_seed(1)
    value = objective(encoder, Batch((images,), None, None, 0.0))
    torch.manual_seed(1)
    quarters = torch.randint(4, (9,))
    logits = objective.quarters(encoder(turned(images, quarters)))
    assert value.item() == pytest.approx(F.cross_entropy(logits, quarters).item(), abs=1e-6)


def test_rotation_needs_square_images():
    with pytest.raises(BadInput, match="rotnet needs square images, not 16 × 8"):
        RotNet(Probe(), Task((3, 16, 8), 2, 2))


@pytest.fixture
def transformer():
    torch.manual_seed(0)
    return TokenProbe(TASK, 12)


def test_all_patches_kept_are_the_transformers_own_tokens(transformer):
    images, model = torch.rand(2, 3, 16, 16), transformer.transformer
    order = torch.arange(16).expand(2, 16)
    assert torch.allclose(
        visible_tokens(transformer, images, order), model.forward_features(images)[:, 1:], atol=1e-6
    )


def test_what_is_hidden_cannot_be_seen_and_the_transformer_is_as_before(transformer):
    images = torch.rand(2, 3, 16, 16)
    plain = transformer(images)
    kept = torch.tensor([[0, 5, 6], [3, 2, 9]])
    tokens = visible_tokens(transformer, images, kept)
    patches = F.unfold(images, 4, stride=4)
    hidden = torch.ones(2, 1, 16).scatter(2, kept[:, None], 0.0)
    other = F.fold(patches * (1 - hidden) + torch.rand_like(patches) * hidden, 16, 4, stride=4)
    assert torch.allclose(visible_tokens(transformer, other, kept), tokens, atol=1e-6)
    seen = F.fold(patches + 0.5 * (1 - hidden), 16, 4, stride=4)
    assert not torch.allclose(visible_tokens(transformer, seen, kept), tokens, atol=1e-3)
    assert torch.equal(transformer(images), plain)


def test_patches_are_cut_row_by_row_and_normalised():
    images = normal(2, 3, 8, 8)
    patches = normalised_patches(images, (4, 4))
    corner = images[1, :, 4:, :4].reshape(-1)  # the third of four
    wanted = (corner - corner.mean()) / (corner.var() + 1e-6).sqrt()
    assert torch.allclose(patches[1, 2], wanted)


def test_a_quarter_is_kept_and_pixels_of_the_rest_are_learned(transformer):
    objective = MAE(transformer, TASK, width=32, depth=1)
    assert objective.kept == 4
    generator = torch.Generator().manual_seed(0)
    shade = torch.linspace(0, 1, 16).expand(8, 3, 16, 16)  # what is hidden follows from what is not
    images = torch.where(torch.rand(8, 1, 1, 1, generator=generator) < 0.5, shade, shade.flip(3))
    batch = Batch((images,), None, None, 0.0)
    optimizer = torch.optim.Adam([*transformer.parameters(), *objective.parameters()], lr=3e-3)
    losses = []
    for step in range(120):
        torch.manual_seed(step)
        optimizer.zero_grad()
        losses.append(objective(transformer, batch))
        losses[-1].backward()
        optimizer.step()
    assert losses[0] > 0.8 and losses[-1] < 0.2


def test_mae_works_with_a_model_of_timm_and_says_what_it_cannot_work_with():
    task = Task((3, 32, 32), 2, 2)
    encoder = timm_encoder(task, model="vit_tiny_patch16_224")
    objective = MAE(encoder, task)
    loss = objective(encoder, Batch((torch.rand(2, 3, 32, 32),), None, None, 0.0))
    loss.backward()
    assert encoder.model.patch_embed.proj.weight.grad.abs().max() > 0
    with pytest.raises(BadInput, match="mae is for timm's vision transformers"):
        MAE(Probe(), TASK)
    with pytest.raises(BadInput, match="mae: width = 10 should be a multiple of heads = 4"):
        MAE(encoder, task, width=10)
