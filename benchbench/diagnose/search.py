"""Search for the composition of augmentations that connects the domains of a shift best.

Nothing is read of the target but its rows. Its labels are those that two classifiers of the source
agree on, made once for the shift, so that all trials are measured by the same.

A trial's score is log(α/γ) (Shen et al. 2022, arXiv:2204.00570), with ``FLOOR`` added to both: what
predicts target accuracy on leaderboards/connectivity, where log(β/γ) adds nothing to it. Without
the floor an augmentation that does next to nothing would win by a ratio of two errors that are too
small to be measured. Chosen by it among the seven there, with true labels, an augmentation reads
43.8 % of the target on average over 28 shifts; by min(log α/γ, log β/γ) with the same floor, 41.6.

An augmentation that destroys everything has ratios of 1, which may be the best of a poor lot. So
source classes, whose labels are known, must stay visible: where they are taken for each other with
an error above ``MOST_MISTAKEN``, half way to chance, the score is the negative of this error or
less, and the trial ranks behind all others.
"""

import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from math import exp, log
from typing import Any, Literal

from tabulate import tabulate

from benchbench.diagnose.connectivity import Connectivity, Errors
from benchbench.diagnose.measure import Meter
from benchbench.diagnose.pseudo import pseudo_labels
from benchbench.diagnose.space import GRAIN, Drawn, Step, drawn, fits, spelled
from benchbench.suite import Shift
from benchbench.terms import BadInput, derive_seed

Sampler = Literal["random", "optuna"]
FLOOR = 0.003  # added to each error
MOST_MISTAKEN = 0.25
STARTUP = 6  # random trials, before Optuna has something to go on
SHOWN = 5  # compositions in a table
USUAL = ("simclr_views", "randaugment", "token_dropout")  # compared with; the first makes labels


@dataclass(frozen=True)
class Trial:
    """A composition, measured."""

    augmentation: str
    found: Connectivity
    source_error: float  # of telling two source classes apart, in [0, 0.5]
    seconds: float  # that the measurement took, when it was made

    @property
    def visible(self) -> bool:
        return self.source_error <= MOST_MISTAKEN

    @property
    def score(self) -> float:
        ratio = log((self.found.alpha.value + FLOOR) / (self.found.gamma.value + FLOOR))
        return ratio if self.visible else min(ratio, -self.source_error)


@dataclass(frozen=True)
class Search:
    """What a search found."""

    shift: Shift
    sampler: Sampler
    agreement: float  # of the classifiers that labelled the target
    usual: tuple[Trial, ...]
    trials: tuple[Trial, ...]  # in the order in which they were made

    @cached_property
    def ranked(self) -> list[Trial]:
        """Each composition once, the best first."""
        each = {trial.augmentation: trial for trial in self.trials}
        return sorted(each.values(), key=lambda t: (t.visible, t.score), reverse=True)


def search(
    meter: Meter,
    shift: Shift,
    steps: Sequence[Step],
    trials: int,
    sampler: Sampler,
    watch: Callable[[str, Trial], None],
) -> Search:
    """Try as many compositions of the steps; ``watch`` is told of each, and which it is.

    All that is learned is kept in the meter's store, and a composition is a function of the meter's
    seed and of the scores before it: a search that was stopped, or is to have more trials, repeats
    what it had at no cost and goes on from there.
    """
    draws = SAMPLERS[sampler](steps, meter.seed)
    values = next(draws)
    usual = [name for name in USUAL if fits(meter.catalog, meter.pack.task, name)] or ["none"]
    pseudo = pseudo_labels(meter, usual[0], shift)
    sources = {meter.pack.domain_names.index(name) for name in shift.sources}

    def tried(which: str, augmentation: str) -> Trial:
        measured, found = meter.of(augmentation, shift, pseudo.labels)
        errors = Errors(measured.nodes, measured.mistakes)
        pairs = errors.between("beta", sources, set())
        if not pairs:
            raise BadInput(f"shift {shift}: no source domain has two classes with enough rows")
        trial = Trial(augmentation, found, errors.mean(pairs), measured.seconds)
        watch(which, trial)
        return trial

    compared = tuple(tried("usual", augmentation) for augmentation in usual)
    made: list[Trial] = []
    for number in range(1, trials + 1):
        made.append(tried(f"trial {number}", spelled(steps, values)))
        values = draws.send(made[-1].score)
    return Search(shift, sampler, pseudo.agreement, compared, tuple(made))


def at_random(steps: Sequence[Step], seed: int) -> Generator[Drawn, float, None]:
    for number in count():
        yield drawn(steps, derive_seed(seed, "trial", number))


def by_optuna(steps: Sequence[Step], seed: int) -> Generator[Drawn, float, None]:
    """Tree-structured Parzen estimator (Bergstra et al. 2011), after ``STARTUP`` random trials."""
    try:
        import optuna
    except ImportError:
        raise BadInput(
            "--sampler optuna needs the package optuna: pip install 'benchbench-shift[search]'"
        ) from None
    ranges = distributions_of(steps)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    tpe = optuna.samplers.TPESampler(
        n_startup_trials=STARTUP, seed=derive_seed(seed, "tpe") % 2**32
    )
    study = optuna.create_study(sampler=tpe, direction="maximize")
    for number in range(STARTUP):
        study.enqueue_trial({**drawn(steps, derive_seed(seed, "trial", number))})
    while True:
        trial = study.ask(ranges)
        score = yield trial.params
        study.tell(trial, score)


def distributions_of(steps: Sequence[Step]) -> dict[str, Any]:
    """Optuna's, of everything that is drawn."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for step in steps:
        found[step.name] = CategoricalDistribution((0, 1))
        for options in step.ranges:
            low, high = options.low, options.high
            found[step.place(options)] = (
                IntDistribution(int(low), int(high))
                if options.whole
                else FloatDistribution(low, high, step=GRAIN)
            )
    return found


SAMPLERS: dict[Sampler, Callable[[Sequence[Step], int], Generator[Drawn, float, None]]] = {
    "random": at_random,
    "optuna": by_optuna,
}


def rendered(dataset: str, meter: Meter, result: Search, form: str) -> str:
    """As markdown or json."""
    best = result.ranked[0]
    if form == "json":
        fields = {
            "dataset": dataset,
            "fingerprint": meter.pack.fingerprint,
            "shift": str(result.shift),
            "encoder": meter.catalog.resolve("encoder", meter.encoder).text,
            "steps": meter.effort.steps,
            "seed": meter.seed,
            "sampler": result.sampler,
            "best": best.augmentation,
            "agreement": result.agreement,
            "trials": [told(trial) for trial in result.trials],
            "usual": [told(trial) for trial in result.usual],
        }
        return json.dumps(fields, indent=1, allow_nan=False) + "\n"
    head = ["", "score", "augmentation", "α", "β", "γ", "α/γ", "β/γ", "source β"]
    named = [(str(place), trial) for place, trial in enumerate(result.ranked[:SHOWN], 1)]
    body = [row(name, trial) for name, trial in named + [("usual", t) for t in result.usual]]
    align = ["left", "right", "left"] + ["right"] * (len(head) - 3)
    text = tabulate(body, head, tablefmt="github", disable_numparse=True, colalign=align)
    return f"{text}\n\n{legend(result)}\n\naugmentation = {json.dumps(best.augmentation)}\n"


def row(name: str, trial: Trial) -> list[str]:
    return [
        name,
        f"{trial.score:.2f}",
        trial.augmentation.replace("|", "\\|"),
        *(f"{getattr(trial.found, kind).value:.3f}" for kind in ("alpha", "beta", "gamma")),
        *(f"{ratio:.2f}" for ratio in map(exp, trial.found.log_ratios)),
        f"{trial.source_error:.3f}" + ("" if trial.visible else ", too high"),
    ]


def told(trial: Trial) -> dict[str, Any]:
    """For programs; errors with their 95 % intervals."""
    return {
        "augmentation": trial.augmentation,
        "score": trial.score,
        "log_ratios": trial.found.log_ratios,
        **{kind: vars(getattr(trial.found, kind)) for kind in ("alpha", "beta", "gamma")},
        "source_error": trial.source_error,
        "visible": trial.visible,
        "seconds": trial.seconds,
    }


def legend(result: Search) -> str:
    """What the score says, and what it does not."""
    best = result.ranked[0]
    lost = (
        ""
        if best.visible
        else " Under every composition that was tried, source classes are taken for each other too "
        f"often (source β above {MOST_MISTAKEN}): none can be recommended."
    )
    return (
        f"*score*: log(α/γ), with {FLOOR} added to both; it is connectivity and no accuracy, which "
        f"`benchbench run` measures, and the best of {len(result.trials)} noisy values is too "
        "high. *α/γ*, *β/γ*: how much "
        "more a class meets itself in the other domain, and two classes each other in one, than "
        "what differs in both; *source β*: of the source alone. No target label was read: the "
        "target's rows have the labels on which two classifiers of the source agree. They agree on "
        f"{result.agreement:.0%}, which is about how often one of them is right, unless the shift "
        f"misleads both alike.{lost}"
    )
