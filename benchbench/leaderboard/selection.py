"""Which of a method's draws and snapshots counts, by rules that see no target label but one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import get_args

from benchbench.extension.constants import Rule
from benchbench.store.records import Record, Score, Validators
from benchbench.suites.suite import split_shift

RULES: tuple[Rule, ...] = get_args(Rule)
Place = tuple[str, str, int]  # method, shift, training seed
HeldOut = Callable[[int, int | None], float | None]  # of a draw and step: leave-one-out accuracy


@dataclass(frozen=True)
class State:
    """A scored end or snapshot of one draw."""

    record: Record
    step: int | None  # None: the end
    scores: tuple[Score, ...]
    validators: Validators


def states_of(records: Sequence[Record]) -> list[State]:
    """All that was scored: draws in their order, of each its end first."""
    found = []
    for record in sorted(records, key=lambda r: r.draw):
        if record.status == "scored":
            found.append(State(record, None, record.scores, record.validators or Validators()))
            found += [State(record, s.step, s.scores, s.validators) for s in record.snapshots]
    return found


def chosen(states: Sequence[State], rule: Rule, held_out: HeldOut) -> State | None:
    """The state that the rule prefers, of equals the first; None if it cannot tell them apart.

    Where there is nothing to choose, every rule chooses it; but ``last`` chooses the end of the
    suite's own settings, draw 0, or nothing.
    """
    if rule == "last":
        return next((s for s in states if s.record.draw == 0 and s.step is None), None)
    if len(states) < 2:
        return states[0] if states else None
    worth = [(preference(state, rule, held_out), state) for state in states]
    known = [(value, state) for value, state in worth if value is not None]
    return max(known, key=lambda pair: pair[0])[1] if known else None


def preference(state: State, rule: Rule, held_out: HeldOut) -> float | None:
    """How much the rule likes a state; None where it has nothing to go by."""
    if rule == "leave_one_out":
        return held_out(state.record.draw, state.step)
    field = "target_val" if rule == "oracle" else rule
    value: float | None = getattr(state.validators, field)
    return value


def held_out_of(by_cell: Mapping[Place, Sequence[Record]], place: Place) -> HeldOut:
    """What a draw reached on the shift's sources, each left out in turn (DomainBed, section 3.2).

    The mean of validation accuracies on the source that was left out.
    """
    method, shift, seed = place
    sources = split_shift(shift)[0]

    def value(draw: int, step: int | None) -> float | None:
        found = []
        for source in sources if len(sources) > 1 else ():
            others = " + ".join(name for name in sources if name != source)
            states = states_of(by_cell.get((method, f"{others} > {source}", seed), ()))
            mine = [s for s in states if (s.record.draw, s.step) == (draw, step)]
            found.append(mine[0].validators.target_val if mine else None)
        known = [one for one in found if one is not None]
        return mean(known) if known and len(known) == len(found) else None

    return value
