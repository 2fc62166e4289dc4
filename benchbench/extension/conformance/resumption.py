"""Interrupt training at every step, go on from what was kept, and compare."""

from collections.abc import Callable

import safetensors.torch
from torch import Tensor, nn

from benchbench.data.pack import Pack
from benchbench.extension.conformance.fixtures import STEPS, Broken, Left, short_run
from benchbench.extension.contracts import Objective, Task
from benchbench.store.artifacts import packed
from benchbench.training.loop import Checkpoints


def resumed_as_uninterrupted(
    make_encoder: Callable[[Task], nn.Module],
    make_objective: Callable[[nn.Module, Task], Objective],
    whole: Left,
    pack: Pack | None = None,
) -> None:
    """Broken if a run that goes on from a checkpoint differs in a bit from one that ran through.

    That is ``whole``.
    """
    states: list[dict[str, Tensor]] = []

    def save(state: dict[str, Tensor]) -> None:
        states.append(safetensors.torch.load(packed(state)))  # as the store would

    short_run(make_encoder, make_objective, pack, checkpoints=Checkpoints(save, every=-1.0))
    for done, state in list(enumerate(states, 1))[:: max(1, (STEPS - 1) // 3)]:
        resumed = short_run(make_encoder, make_objective, pack, resume=state)
        if not resumed.left.same(whole):
            raise Broken(
                f"a run that was interrupted after step {done} and resumed ends elsewhere; keep "
                "counters, queues and momentum in parameters and persistent buffers, and let "
                "nothing depend on a value that was read back (.item()) before"
            )
