"""The final of a search: its best compositions and the usual ones are pre-trained with.

Connectivity does not know how much an augmentation teaches. A short pre-training on the rows of
source and target does, and what is read off it on validation rows of the source tells: no label of
the target is asked for.
"""

from collections.abc import Callable, Sequence

from benchbench.diagnostics.augmentation_search import Finalist
from benchbench.diagnostics.connectivity_measurement import Meter
from benchbench.execution.local import run_cells
from benchbench.execution.progress import Silence
from benchbench.extension.catalog import Choice
from benchbench.store.records import Record
from benchbench.suites.plan import Plan
from benchbench.suites.suite import MethodTable, Shift, StageTable, Suite

BATCH_SIZE, LR = 128, 4e-3  # as on leaderboards/connectivity


def pretrained(
    meter: Meter,
    dataset: Choice,
    shift: Shift,
    augmentations: Sequence[str],
    steps: int,
    watch: Callable[[Finalist], None],
) -> tuple[Finalist, ...]:
    """SimCLR with each, in the meter's store, where an earlier search may have left some of them.

    ``watch`` is told of each. BadInput if SimCLR, or the meter's encoder, is not for such data.
    """
    suite = Suite(
        name="search",
        dataset=dataset.text,
        shifts=(str(shift),),
        seeds=(meter.seed,),
        encoder=meter.encoder,
        stage=StageTable(sees="source+target", steps=steps, batch_size=BATCH_SIZE, lr=LR),
        method=tuple(
            MethodTable(name=text, chain=(StageTable(objective="simclr"),), augmentation=text)
            for text in augmentations
        ),
    )
    plan = Plan(suite, meter.catalog, dataset, meter.pack, meter.store, meter.machine)
    for cell in plan.cells:
        plan.check(cell)
    return tuple(map(finalist_of, run_cells(plan, plan.cells, Audience(watch))))


def finalist_of(record: Record) -> Finalist:
    source = record.validators.source_val if record.validators else None
    return Finalist(record.method, source, record.reason)


class Audience(Silence):
    """Is told of what was read off the source, and of nothing else: a record has more."""

    def __init__(self, watch: Callable[[Finalist], None]) -> None:
        self.watch = watch

    def cell_ends(self, record: Record) -> None:
        self.watch(finalist_of(record))
