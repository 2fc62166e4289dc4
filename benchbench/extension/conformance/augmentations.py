"""Checks of augmentations."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchbench.extension.conformance import all_kinds
from benchbench.extension.conformance.fixtures import (
    Broken,
    CannotBuild,
    Skip,
    Subject,
    close,
    told,
)
from benchbench.extension.conformance.pretended_gpu import PretendedGpu, Seen
from benchbench.extension.constants import PADDING


def view(subject: Subject, inputs: Tensor, seed: int = 0, build: Any = None) -> Tensor:
    """What the augmentation makes of a batch, with torch's generator at ``seed``."""
    task = replace(all_kinds.task_for(subject), input_shape=tuple(inputs.shape[1:]))
    augment = build or subject.build(task)
    torch.manual_seed(seed)
    return augment(inputs)


def contract(subject: Subject) -> None:
    """A view has its batch's shape and dtype on the same device, and lies in its range.

    That is float32 in [0, 1] of images, int64 of texts, of words in the vocabulary and PADDING.
    """
    generator = torch.Generator().manual_seed(0)
    if subject.of_texts:
        batches = [all_kinds.inputs_for(subject, rows=8)]
    else:
        sizes = ((16, 16), (12, 20))
        batches = [torch.rand(8, 3, *size, generator=generator) for size in sizes]
    for batch in batches:
        seen = view(subject, batch)
        if not isinstance(seen, Tensor):
            raise Broken(f"it returns {type(seen).__name__}, not one tensor of views")
        if seen.shape != batch.shape:
            raise Broken(
                f"of a batch {tuple(batch.shape)} it makes {tuple(seen.shape)}; a view has the "
                "shape of its batch"
            )
        if seen.dtype != batch.dtype or seen.requires_grad:
            kind = str(batch.dtype).removeprefix("torch.")
            raise Broken(f"a view is {kind} without gradient, not {seen.dtype}")
        if subject.of_texts:
            count = len(all_kinds.task_for(subject).vocabulary)
            if seen.min() < PADDING or seen.max() >= count:
                raise Broken("it makes tokens that are not in the vocabulary")
        elif not (seen.isfinite().all() and seen.min() >= 0 and seen.max() <= 1):
            low, high = float(seen.min()), float(seen.max())
            raise Broken(f"values lie in [{low:.3g}, {high:.3g}], not in [0, 1]; end with clamp")


def input_unchanged(subject: Subject) -> None:
    """The batch is not changed in place, and the view is no window onto it."""
    images = all_kinds.inputs_for(subject, rows=8)
    before = images.clone()
    seen = view(subject, images)
    if not torch.equal(images, before):
        raise Broken("it changes its input in place; start from images.clone() or a new tensor")
    if random_at_all(subject):
        seen.zero_()
        if not torch.equal(images, before):
            raise Broken("its view shares memory with the batch; return a new tensor")


def seeded(subject: Subject) -> None:
    """torch's generator alone decides the view: the same seed gives the same, at any time."""
    images = all_kinds.inputs_for(subject, rows=16)
    build = subject.build(all_kinds.task_for(subject))
    first = view(subject, images, 0, build)
    view(subject, images, 1, build)
    if not torch.equal(first, view(subject, images, 0, build)):
        raise Broken(
            "with torch's generator at one seed two calls differ; draw with torch.rand and keep "
            "no state from call to call"
        )
    if not torch.equal(first, view(subject, images, 0)):
        raise Broken("two augmentations built alike differ at one seed; draw nothing when built")
    if not random_at_all(subject):
        raise Skip("nothing is random in it")


def random_at_all(subject: Subject) -> bool:
    images = all_kinds.inputs_for(subject, rows=16)
    first = view(subject, images, 0)
    return not all(torch.equal(first, view(subject, images, seed)) for seed in (1, 2, 3))


def per_sample(subject: Subject) -> None:
    """Each row gets parameters of its own: equal images become different views."""
    if not random_at_all(subject):
        raise Skip("nothing is random in it")
    images = all_kinds.inputs_for(subject, rows=1).repeat_interleave(32, 0)
    seen = view(subject, images)
    if all(torch.equal(seen[0], row) for row in seen):
        raise Broken(
            "32 equal images become 32 equal views: one draw serves the whole batch; draw "
            "torch.rand(len(images), 1, 1, 1)"
        )


def rows_apart(subject: Subject) -> None:
    """A row's view depends on that row's image alone, and not on its neighbours."""
    images = all_kinds.inputs_for(subject, rows=8)
    others = images.clone()
    others[1:] = all_kinds.inputs_for(subject, rows=8, seed=1)[1:]
    for seed in range(3):
        if not close(view(subject, images, seed)[:1], view(subject, others, seed)[:1]):
            raise Broken(
                "a row's view changes with the other rows of its batch; take means over the "
                "image, dims (1, 2, 3), never over dim 0"
            )
    if not random_at_all(subject):
        order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
        if not close(view(subject, images)[order], view(subject, images[order])):
            raise Broken("in another order the same images become other views")


def short_batches(subject: Subject) -> None:
    """One image is augmented as many are."""
    try:
        seen = view(subject, all_kinds.inputs_for(subject, rows=1))
    except CannotBuild:
        raise
    except Exception as error:
        raise Broken(f"with one image {told(error)}") from None
    if seen.shape[0] != 1:
        raise Broken(f"of one image it makes {tuple(seen.shape)}; do not squeeze the batch away")


def channels(subject: Subject) -> None:
    """Images of 1, 3 and 4 channels are augmented, or refused with BadInput when it is built."""
    if subject.of_texts:
        raise Skip("it is for texts, and the check is for images of other channels")
    all_kinds.any_channels(
        lambda count: view(subject, all_kinds.inputs_for(subject, channels=count)),
        "support them, or raise BadInput in the factory, which knows task.input_shape",
    )


def devices(subject: Subject) -> None:
    """What it draws and computes lies where the batch lies. Tried on a pretended GPU."""
    all_kinds.on_one_device(subject.rehearsed(lambda gpu: on_gpu(subject, gpu)))


def no_waits(subject: Subject) -> None:
    """Making views never waits for the device to read a value. Tried on a pretended GPU."""
    all_kinds.without_waits(subject.rehearsed(lambda gpu: on_gpu(subject, gpu)))


def on_gpu(subject: Subject, gpu: PretendedGpu) -> Seen:
    """The mixes of two calls, and the waits of the second."""
    augment = subject.build(all_kinds.task_for(subject))
    inputs = all_kinds.inputs_for(subject).to("cuda")
    gpu.new()
    seen = []
    for seed in range(2):
        view(subject, inputs, seed, augment)
        seen.append(gpu.new())
    return Seen(seen[0].mixes + seen[1].mixes, seen[1].waits)


CHECKS = (
    contract,
    input_unchanged,
    seeded,
    per_sample,
    rows_apart,
    short_batches,
    channels,
    devices,
    no_waits,
)
