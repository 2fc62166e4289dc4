"""Checks of encoders."""

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from benchbench.data.pack import Pack
from benchbench.extension.conformance import all_kinds
from benchbench.extension.conformance.fixtures import (
    Broken,
    Reader,
    Skip,
    Subject,
    Trained,
    bars,
    close,
    packed,
    sentences,
    short_run,
    told,
)
from benchbench.extension.conformance.pretended_gpu import PretendedGpu, Seen
from benchbench.extension.conformance.resumption import resumed_as_uninterrupted


def built(subject: Subject, seed: int = 0, channels: int = 3) -> nn.Module:
    task = all_kinds.task_for(subject)
    torch.manual_seed(seed)
    if not subject.of_texts:
        task = replace(task, input_shape=(channels, *task.input_shape[1:]))
    return subject.build(task)


def contract(subject: Subject) -> None:
    """A module that maps [B, C, H, W] in [0, 1], or [B, L], to float [B, num_features]."""
    encoder = built(subject)
    if not isinstance(encoder, nn.Module):
        raise Broken(f"the factory returns {type(encoder).__name__}, not a torch.nn.Module")
    width = getattr(encoder, "num_features", None)
    if type(width) is not int or width < 1:
        raise Broken(f"num_features is {width!r}; set it to the width of the output, an int")
    z = encoder(all_kinds.inputs_for(subject, rows=5))
    if not isinstance(z, Tensor):
        raise Broken(f"it returns {type(z).__name__}, not one tensor of features")
    if tuple(z.shape) != (5, width):
        raise Broken(
            f"of 5 images it makes {tuple(z.shape)}, not (5, {width}): pool what is left of the "
            "image, and set num_features to the width"
        )
    if z.dtype != torch.float32 or not z.isfinite().all():
        raise Broken(f"features must be finite float32, not {z.dtype}, {z.flatten()[:3].tolist()}")


def channels(subject: Subject) -> None:
    """Images of 1, 3 and 4 channels are read, or refused with BadInput."""
    if subject.of_texts:
        raise Skip("it is for texts, and the check is for images of other channels")
    all_kinds.any_channels(
        lambda count: built(subject, channels=count)(all_kinds.inputs_for(subject, channels=count)),
        "read task.input_shape[0] channels, or raise BadInput",
    )


def input_unchanged(subject: Subject) -> None:
    """The images are not changed in place."""
    encoder, images = built(subject), all_kinds.inputs_for(subject)
    before = images.clone()
    encoder(images)
    if not torch.equal(images, before):
        raise Broken("it changes its input in place; work on a copy, as in images = images - mean")


def seeded(subject: Subject) -> None:
    """The seed decides the weights: the same seed the same, another seed others."""
    one, two, three = (built(subject, seed).state_dict() for seed in (0, 0, 1))
    if any(not torch.equal(one[name], two[name]) for name in one):
        raise Broken("two encoders of one seed differ; draw initial weights with torch alone")
    trainable = [name for name, _ in built(subject).named_parameters()]
    if trainable and all(torch.equal(one[name], three[name]) for name in trainable):
        raise Broken("the seed changes no weight; do not call torch.manual_seed in a factory")


def rows_apart(subject: Subject) -> None:
    """In evaluation an image's features do not depend on the rest of the batch, nor on chance."""
    encoder, images = built(subject).eval(), all_kinds.inputs_for(subject, rows=6)
    with torch.no_grad():
        z, again = encoder(images), encoder(images)
        alone = encoder(images[2:3])
        turned = encoder(images.flip(0)).flip(0)
    if not torch.equal(z, again):
        raise Broken("in evaluation two calls differ; turn dropout and the like off in eval()")
    if not (close(z[2:3], alone) and close(z, turned)):
        raise Broken(
            "in evaluation an image's features depend on its batch; use running statistics, and "
            "no mean over dim 0"
        )


def sees_the_image(subject: Subject) -> None:
    """Different images have different features."""
    with torch.no_grad():
        z = built(subject).eval()(all_kinds.inputs_for(subject, rows=6))
    if float(z.std(0).max()) <= 1e-6 * max(float(z.abs().max()), 1e-6):
        raise Broken("every image has the same features; the output does not depend on the input")


def all_weights_learn(subject: Subject) -> None:
    """Every trainable parameter gets a finite gradient."""
    encoder = built(subject).train()
    z = encoder(all_kinds.inputs_for(subject))
    if not z.requires_grad:
        raise Broken("no gradient reaches the weights; do not detach, nor run under no_grad")
    (z * torch.linspace(-1, 1, z.numel()).view_as(z)).sum().backward()
    for name, parameter in encoder.named_parameters():
        if parameter.requires_grad and parameter.grad is None:
            raise Broken(
                f"parameter {name} is not used; remove it, or set requires_grad=False: unused "
                "parameters stop distributed training"
            )
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            raise Broken(f"the gradient of {name} is not finite")


def state_is_complete(subject: Subject) -> None:
    """A fresh encoder with a trained one's state dict computes the same."""
    trained = subject.trained(lambda: run(subject))
    fresh = built(subject, seed=1)
    missing = fresh.load_state_dict(trained.encoder.state_dict())
    assert not missing.missing_keys
    images = all_kinds.inputs_for(subject)
    with torch.no_grad():
        if not close(fresh.eval()(images), trained.encoder.eval()(images)):
            raise Broken(
                "after load_state_dict it computes something else; keep what it learns in "
                "parameters and register_buffer, not in plain attributes"
            )


def resumes(subject: Subject) -> None:
    """Training interrupted at any step and resumed equals training without interruption."""
    whole = subject.left(lambda: run(subject))
    resumed_as_uninterrupted(subject.build, Reader, whole, pack_for(subject))


def run(subject: Subject) -> Trained:
    return short_run(subject.build, Reader, pack_for(subject))


def pack_for(subject: Subject) -> Pack:
    return packed(sentences() if subject.of_texts else bars(8, all_kinds.task_for(subject)))


def short_batches(subject: Subject) -> None:
    """A batch of two trains, and a batch of one is read."""
    encoder = built(subject)
    for mode, rows in ((True, 2), (False, 1)):
        try:
            z = encoder.train(mode)(all_kinds.inputs_for(subject, rows=rows))
        except Exception as error:
            raise Broken(f"with {rows} images {told(error)}") from None
        if len(z) != rows:
            raise Broken(f"of {rows} images it makes {len(z)} rows; do not squeeze the batch away")


def autocast(subject: Subject) -> None:
    """It works under bf16 autocast."""
    encoder = built(subject)
    with torch.autocast("cpu", torch.bfloat16):
        try:
            z = encoder(all_kinds.inputs_for(subject))
        except Exception as error:
            raise Broken(
                f"under bf16 autocast {told(error)}; cast where types must agree"
            ) from None
    if not z.isfinite().all():
        raise Broken("under bf16 autocast features are not finite")
    z.float().sum().backward()


def devices(subject: Subject) -> None:
    """What it computes with lies where its input lies. Tried on a pretended GPU."""
    all_kinds.on_one_device(subject.rehearsed(lambda gpu: on_gpu(subject, gpu)))


def no_waits(subject: Subject) -> None:
    """Encoding never waits for the device to read a value. Tried on a pretended GPU."""
    all_kinds.without_waits(subject.rehearsed(lambda gpu: on_gpu(subject, gpu)))


def on_gpu(subject: Subject, gpu: PretendedGpu) -> Seen:
    """The mixes of two passes there and back, and the waits of the second."""
    encoder = built(subject).to("cuda")
    inputs = all_kinds.inputs_for(subject).to("cuda")
    gpu.new()
    seen = []
    for _ in range(2):
        encoder(inputs).sum().backward()
        seen.append(gpu.new())
    return Seen(seen[0].mixes + seen[1].mixes, seen[1].waits)


def copies(subject: Subject) -> None:
    """copy.deepcopy gives an encoder of its own: momentum methods need one."""
    encoder = built(subject)
    try:
        twin = copy.deepcopy(encoder)
    except Exception as error:
        raise Broken(
            f"copy.deepcopy: {told(error)}; keep no open files, locks or lambdas"
        ) from None
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    for a, b in zip(encoder.parameters(), twin.parameters(), strict=True):
        if torch.equal(a, b):
            raise Broken("a copy shares its weights with the original")


CHECKS = (
    contract,
    channels,
    input_unchanged,
    seeded,
    rows_apart,
    sees_the_image,
    all_weights_learn,
    short_batches,
    autocast,
    devices,
    no_waits,
    copies,
    state_is_complete,
    resumes,
)
