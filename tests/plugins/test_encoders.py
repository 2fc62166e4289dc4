"""Encoders read images in [0, 1] of the task's shape."""

import pytest
import torch

from benchbench import BadInput, Task
from benchbench.suites.plan import build_encoder
from benchbench_encoders import SmallCNN, timm_encoder

SMALL = Task((3, 32, 32), 10, 2)


@pytest.mark.parametrize(
    ("text", "task", "width"),
    [
        ("small_cnn(width=8)", SMALL, 64),
        ("small_cnn", Task((1, 8, 8), 3, 2), 192),
        ("timm(model='resnet18', small_stem=True)", SMALL, 512),
        ("timm(model='resnet10t')", Task((1, 64, 48), 3, 2), 512),
        ("timm(model='vit_tiny_patch16_224')", SMALL, 192),
        ("timm(model='mobilenetv3_small_050')", Task((8, 40, 40), 3, 2), 1024),
    ],
)
def test_an_encoder_returns_its_number_of_features(catalog, text, task, width):
    choice = catalog.resolve("encoder", text)
    encoder = build_encoder(choice, task, seed=0)
    z = encoder(torch.rand(3, *task.input_shape))
    assert z.shape == (3, encoder.num_features) == (3, width)
    assert z.isfinite().all()


def test_the_small_stem_keeps_the_resolution():
    plain, small = (timm_encoder(SMALL, small_stem=flag).model for flag in (False, True))
    images = torch.rand(2, 3, 32, 32)
    assert plain.eval().forward_features(images).shape[2:] == (1, 1)
    assert small.eval().forward_features(images).shape[2:] == (4, 4)


def test_timm_models_read_images_normalised_as_their_configuration_says():
    encoder = timm_encoder(SMALL, model="resnet18").eval()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in
                 ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))  # fmt: skip
    images = torch.rand(2, 3, 32, 32)
    assert torch.allclose(encoder(images), encoder.model((images - mean) / std), atol=1e-5)


def test_the_same_seed_gives_the_same_weights(catalog):
    choice = catalog.resolve("encoder", "small_cnn")
    one, two, three = (
        torch.cat([p.flatten() for p in build_encoder(choice, SMALL, seed).parameters()])
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, two) and not torch.equal(one, three)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"model": "resnet1"}, "timm has no model 'resnet1'"),
        ({"model": "vit_tiny_patch16_224", "small_stem": True}, "small_stem is for timm's ResNets"),
    ],
)
def test_what_timm_cannot_do_is_refused(options, sentence):
    with pytest.raises(BadInput, match=sentence):
        timm_encoder(SMALL, **options)


def test_pretrained_weights_without_a_network_are_one_clear_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BadInput, match="weights of resnet10t are neither in the local cache nor"):
        timm_encoder(SMALL, model="resnet10t", pretrained=True)


def test_an_encoder_that_cannot_read_the_images_is_refused(catalog):
    choice = catalog.resolve("encoder", "timm(model='inception_v4')")
    with pytest.raises(BadInput, match="cannot read images of 3 × 32 × 32"):
        build_encoder(choice, SMALL, 0)


def test_width_is_the_number_of_channels_of_the_first_layer():
    assert SmallCNN(SMALL, width=6).blocks[0][0].out_channels == 6


def test_the_projection_of_a_clip_tower_is_what_its_texts_are_compared_with():
    name = "vit_xsmall_patch16_clip_224"
    plain, projected = (
        timm_encoder(SMALL, model=name, projection=flag).eval() for flag in (False, True)
    )
    missing, extra = projected.load_state_dict(plain.state_dict(), strict=False)
    assert extra == [] and {key.split(".")[1] for key in missing} == {"head"}
    images = torch.rand(2, *SMALL.input_shape)
    with torch.no_grad():
        wanted = projected.model.head(plain(images))
        assert torch.allclose(projected(images), wanted, atol=1e-5)
    assert projected.num_features == wanted.shape[1] != plain.num_features
    with pytest.raises(BadInput, match="projection is for the image towers of CLIP, not for resn"):
        timm_encoder(SMALL, projection=True)


def test_transformers_read_small_views_too():
    encoder = timm_encoder(SMALL, model="vit_tiny_patch16_224").eval()
    with torch.no_grad():
        assert encoder(torch.rand(2, 3, 16, 16)).shape == (2, encoder.num_features)


def test_a_standardised_image_has_neither_brightness_nor_contrast_of_its_own():
    torch.manual_seed(0)
    encoder = SmallCNN(SMALL, width=8, standardise=True).eval()
    images = torch.rand(4, *SMALL.input_shape)
    with torch.no_grad():
        assert encoder(torch.zeros(2, *SMALL.input_shape)).isfinite().all()
    plain = SmallCNN(SMALL, width=8).eval()
    plain.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        unit = (images - images.mean((1, 2, 3), keepdim=True)) / (
            images.std((1, 2, 3), keepdim=True) + 0.05
        )
        assert torch.allclose(plain(unit), encoder(images), atol=1e-5)
