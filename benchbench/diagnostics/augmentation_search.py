"""Search for the composition of augmentations that connects the domains of a shift best.

Nothing is read of the target but its rows. Its labels are those that two classifiers of the source
agree on, made once for the shift, so that all trials are measured by the same.

A trial's score is log(α/γ) (Shen et al. 2022, arXiv:2204.00570), which predicts target accuracy on
leaderboards/connectivity, less half of the logarithm of source β, the error of telling two source
classes apart, which needs no assumed label: an augmentation that connects domains is of no use
where it connects classes, too. ``FLOOR`` is added to each, so that what does next to nothing does
not win by a ratio of errors that are too small to be measured. Where source β is above
``MOST_MISTAKEN``, half way to chance, the score is the negative of it or less, and the trial ranks
behind all others.

How much an augmentation teaches, none of this tells. So the best few are pre-trained with, beside
the usual ones, and the one counts whose features read the source best
(benchbench/execution/search_finalists.py).
"""

import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from math import exp, log
from typing import Any, Literal

from tabulate import tabulate

from benchbench.diagnostics.augmentation_search_space import (
    GRAIN,
    Drawn,
    Step,
    drawn,
    fits,
    spelled,
)
from benchbench.diagnostics.connectivity import Connectivity, Errors
from benchbench.diagnostics.connectivity_measurement import Meter
from benchbench.diagnostics.pseudo_labels import pseudo_labels
from benchbench.extension.constants import COLOURS, CROPS
from benchbench.extension.errors import BadInput
from benchbench.suites.suite import Shift
from benchbench.training.seeds import derive_seed

Sampler = Literal["random", "optuna"]
FLOOR = 0.003  # added to each error
MOST_MISTAKEN = 0.25
STARTUP = 6  # random trials, before Optuna has something to go on
SHOWN = 5  # compositions in a table
LABELLED = ("simclr_views", "token_dropout")  # the first that fits makes labels
USUAL = (f"{CROPS} | {COLOURS}", "randaugment", "token_dropout")  # compared with, and in the final


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
        score = ratio - log(self.source_error + FLOOR) / 2
        return score if self.visible else min(score, -self.source_error)


@dataclass(frozen=True)
class Finalist:
    """An augmentation that was pre-trained with."""

    augmentation: str
    source: float | None  # accuracy of the readout on validation rows of the source
    reason: str | None = None  # why there is none


@dataclass(frozen=True)
class Search:
    """What a search found."""

    shift: Shift
    sampler: Sampler
    agreement: float  # of the classifiers that labelled the target
    usual: tuple[Trial, ...]
    trials: tuple[Trial, ...]  # in the order in which they were made
    finalists: tuple[Finalist, ...] = ()  # the usual ones first

    @cached_property
    def ranked(self) -> list[Trial]:
        """Each composition once, the best first."""
        each = {trial.augmentation: trial for trial in self.trials}
        return sorted(each.values(), key=lambda t: (t.visible, t.score), reverse=True)

    @property
    def best(self) -> str:
        """What reads the source best, of equals the first; without a final, what scores most."""
        read = [finalist for finalist in self.finalists if finalist.source is not None]
        if read:
            return max(read, key=lambda finalist: finalist.source or 0).augmentation
        return self.ranked[0].augmentation

    def entrants(self, count: int) -> list[str]:
        """To a final: the usual augmentations, and the best compositions that show the classes."""
        found = [trial.augmentation for trial in self.ranked if trial.visible][:count]
        return [*dict.fromkeys([*(trial.augmentation for trial in self.usual), *found])]


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
    task = meter.pack.task
    usual, labelled = (
        [text for text in texts if fits(meter.catalog, task, text)] or ["none"]
        for texts in (USUAL, LABELLED)
    )
    pseudo = pseudo_labels(meter, labelled[0], shift)
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
        found[step.name] = CategoricalDistribution((1,) if step.always else (0, 1))
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
    if form == "json":
        fields = {
            "dataset": dataset,
            "fingerprint": meter.pack.fingerprint,
            "shift": str(result.shift),
            "encoder": meter.catalog.resolve("encoder", meter.encoder).text,
            "steps": meter.effort.steps,
            "seed": meter.seed,
            "sampler": result.sampler,
            "best": result.best,
            "agreement": result.agreement,
            "trials": [told(trial) for trial in result.trials],
            "usual": [told(trial) for trial in result.usual],
            "finalists": [vars(finalist) for finalist in result.finalists],
        }
        return json.dumps(fields, indent=1, allow_nan=False) + "\n"
    head = ["", "score", "augmentation", "α", "β", "γ", "α/γ", "β/γ", "source β"]
    named = [(str(place), trial) for place, trial in enumerate(result.ranked[:SHOWN], 1)]
    body = [row(name, trial) for name, trial in named + [("usual", t) for t in result.usual]]
    align = ["left", "right", "left"] + ["right"] * (len(head) - 3)
    text = tabulate(body, head, tablefmt="github", disable_numparse=True, colalign=align)
    parts = [text, legend(result), final(result), f"augmentation = {json.dumps(result.best)}"]
    return "\n\n".join(part for part in parts if part) + "\n"


def final(result: Search) -> str:
    """What pre-training with the best and the usual ones said."""
    if not result.finalists:
        return ""
    body = [
        [
            f"{100 * finalist.source:.1f}" if finalist.source is not None else finalist.reason,
            finalist.augmentation.replace("|", "\\|"),
        ]
        for finalist in result.finalists
    ]
    text = tabulate(
        body, ["source", "pre-trained with"], tablefmt="github", disable_numparse=True,
        colalign=["right", "left"],
    )  # fmt: skip
    return (
        f"{text}\n\n*source*: what a linear readout gets right of the source's validation rows, in "
        "%, after SimCLR on the rows of source and target; connectivity does not know how much an "
        "augmentation teaches. The best of these is taken, of equals the first."
    )


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
        f"*score*: log(α/γ) less half of log(source β), with {FLOOR} added to each; it is no "
        f"accuracy, and the best of {len(result.trials)} noisy values is too high. *α/γ*, *β/γ*: "
        "how much more a class meets itself in the other domain, and two classes of one domain "
        "meet, than what differs in both; *source β*: of the source alone. No target label was "
        "read: the target's rows have the labels on which two classifiers of the source agree, "
        f"{result.agreement:.0%} of them, which is about how often one is right, unless the "
        f"shift misleads both alike.{lost}"
    )
