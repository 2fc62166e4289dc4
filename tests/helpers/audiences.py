"""Audiences of a run: one that says nothing, and one that counts; and what lasts of a record."""

from benchbench.execution.local import run_cells
from benchbench.store.records import Record


def quiet(stage):
    """Watch a stage, and say nothing."""
    return lambda done, loss: None


class Silent:
    """Says nothing; a failed cell has a trace."""

    def cell_starts(self, cell):
        return quiet

    def cell_ends(self, record):
        pass

    def cell_fails(self, trace):
        assert "Traceback" in trace


class Count:
    """Counts the stages that were trained."""

    def __init__(self):
        self.stages, self.records = [], []

    def cell_starts(self, cell):
        def watcher(stage):
            self.stages.append(stage.objective)
            return quiet(stage)

        return watcher

    def cell_ends(self, record):
        self.records.append(record)

    def cell_fails(self, trace):
        assert "Traceback" in trace


def run_all(plan):
    audience = Count()
    run_cells(plan, [cell for cell in plan.cells if not plan.done(cell)], audience)
    return audience


def lasting(record: Record) -> dict:
    """A record without time and cost."""
    return {k: v for k, v in record.model_dump(mode="json").items() if k != "cost"}
