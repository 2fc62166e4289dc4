"""Why something carries over to another domain, or does not, and what will."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchbench.extension.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchbench.diagnostics.advice import Labels
    from benchbench.diagnostics.augmentation_search import Finalist, Sampler, Trial
    from benchbench.diagnostics.connectivity_measurement import Estimator, Meter
    from benchbench.extension.catalog import Choice, Wanted

from benchbench.api.boards import is_board
from benchbench.api.opening import (
    Where,
    check_at_least,
    check_one_of,
    chosen_cells,
    counting,
    data_place,
    opened,
    spelled,
    store_for,
    store_place,
    teller,
    wanted_of,
)
from benchbench.api.reports import (
    AdviceReport,
    ConnectivityReport,
    FeatureReport,
    FigureReport,
    PredictorReport,
    SearchReport,
)


def advise(
    dataset: Any,
    sources: str | Sequence[str],
    *,
    targets: str | Sequence[str] = (),
    augmentations: Any = (),
    goal: float = 0.8,
    labels: Labels = "source",
    out: Where = None,
    encoder: Any = None,
    steps: int = 300,
    seed: int = 0,
    store: Where = None,
    data: Where = None,
    device: str = "auto",
    plugins: Sequence[str | Path] = (),
    without_plugins: Sequence[str] = (),
    strict_plugins: bool = False,
    progress: bool = True,
) -> AdviceReport:
    """Will a classifier of the sources work on other domains, or must these be labelled?

    Measures which augmentation connects the domains, and predicts the accuracy of contrastive
    pre-training with it, or says why it cannot tell. ``targets`` are all other domains if none is
    named; ``augmentations`` are candidates, the usual ones if there are none. ``goal`` in (0, 1) is
    the accuracy that would do. With ``labels`` "source" no label of a target is read. The page is
    written to ``out``, if that is given. The rest is as in `connectivity`.

    BadInput, before anything is measured, if a domain is unknown, an augmentation cannot be built,
    or ``out`` would change the dataset.
    """
    from benchbench.data.dataset_loading import check_apart
    from benchbench.diagnostics.advice import advise as advised
    from benchbench.diagnostics.advice import in_advance, usual
    from benchbench.diagnostics.advice_page import page
    from benchbench.store.atomic_files import make_writable, place_text

    if not 0 < goal < 1:
        raise BadInput(f"goal = {goal} is no accuracy between 0 and 1")
    check_one_of("labels", labels, ("source", "given"))
    place = None if out is None else Path(out)
    if place is not None and not place.parent.is_dir():
        raise BadInput(f"--out {place}: there is no folder {place.parent}")
    wanted = wanted_of(plugins, without_plugins, strict_plugins)
    with _metered(
        dataset, augmentations, encoder, "fast", steps, seed, store, data, device,
        wanted=wanted, progress=progress,
    ) as made:  # fmt: skip
        meter, labelled = made.meter, _several(sources)
        if place is not None:
            check_apart(made.dataset, made.data, meter.store, place)
            make_writable(place.parent, f"--out {place.parent}")
        found = advised(
            meter,
            made.dataset.text,
            labelled,
            _several(targets) or [n for n in meter.pack.domain_names if n not in labelled],
            made.augmentations or usual(meter),
            goal=goal,
            labels=labels,
            watch=lambda networks: made.tell(in_advance(networks, steps)),
        )
        report = AdviceReport(found, page(found, meter.pack))
    if place is not None:
        place_text(place, report.page)
    return report


def connectivity(
    dataset: Any,
    *,
    shifts: str | Sequence[str] = (),
    augmentations: Any = ("simclr_views",),
    estimator: Estimator = "fast",
    encoder: Any = None,
    steps: int = 300,
    seed: int = 0,
    store: Where = None,
    data: Where = None,
    device: str = "auto",
    plugins: Sequence[str | Path] = (),
    without_plugins: Sequence[str] = (),
    strict_plugins: bool = False,
    progress: bool = True,
) -> ConnectivityReport:
    """How augmentations connect the classes and domains of a dataset (Shen et al. 2022).

    ``dataset`` is a name as a suite spells it, `DomainData`, a torch Dataset of (image, label,
    domain), or arrays (images, labels, domains). ``shifts`` are as ``"a > b"``, every two domains
    if none is named. Of ``augmentations`` each is a text ``"a | b(key=value)"``, a function from a
    batch to its view, or a list of such, in turn.

    ``encoder`` is trained to tell the groups apart, in ``steps`` steps: a name, or a factory whose
    first argument is ``task``; small_cnn(width=16), of texts transformer, if not said. It is one
    network with ``estimator`` "fast"; with "faithful", as in the paper, one for every pair of
    groups. Nothing is measured twice, but with an object that has no digest. ``store`` and ``data``
    are as in `run`.

    BadInput says which name is unknown or not for such data, and where there are too few rows.
    """
    from itertools import combinations

    from benchbench.diagnostics.connectivity_report import told
    from benchbench.suites.suite import Shift

    check_one_of("estimator", estimator, ("fast", "faithful"))
    wanted = wanted_of(plugins, without_plugins, strict_plugins)
    with _metered(
        dataset, augmentations, encoder, estimator, steps, seed, store, data, device,
        wanted=wanted, progress=progress,
    ) as made:  # fmt: skip
        meter, names = made.meter, made.meter.pack.domain_names
        named = _several(shifts) or [f"{a} > {b}" for a, b in combinations(names, 2)]
        every, found = [Shift.parse(text, names) for text in named], []
        for augmentation in made.augmentations:
            for shift in every:
                measured = meter.of(augmentation, shift)
                found.append(told(made.dataset.text, meter, shift, measured, "given"))
                made.tell(f"{shift}, {found[-1].augmentation}: {found[-1].seconds:.0f} s")
    return ConnectivityReport(tuple(found))


def search(
    dataset: Any,
    shift: str,
    *,
    trials: int = 20,
    sampler: Sampler = "optuna",
    among: str | Sequence[str] = (),
    finalists: int = 3,
    pretrain_steps: int = 400,
    encoder: Any = None,
    steps: int = 300,
    seed: int = 0,
    store: Where = None,
    data: Where = None,
    device: str = "auto",
    plugins: Sequence[str | Path] = (),
    without_plugins: Sequence[str] = (),
    strict_plugins: bool = False,
    progress: bool = True,
) -> SearchReport:
    """Compose augmentations that connect the domains of a shift, without target labels.

    So many of the best compositions as ``finalists`` says, and the usual ones, are pre-trained with
    by SimCLR in ``pretrain_steps`` steps; the best is what reads the source best. With 0 finalists
    it is what connects best. ``among`` are names of augmentations to compose. The rest is as in
    `connectivity`. A search that was stopped, or is to have more trials, goes on where it was.

    BadInput if an augmentation is unknown or not for such data, or optuna is not installed.
    """
    from dataclasses import replace

    from benchbench.diagnostics.augmentation_search import rendered
    from benchbench.diagnostics.augmentation_search import search as searched
    from benchbench.diagnostics.augmentation_search_space import steps_for
    from benchbench.execution.search_finalists import pretrained
    from benchbench.suites.suite import Shift
    from benchbench.training.stop_signals import raised_by

    check_one_of("sampler", sampler, ("optuna", "random"))
    for name, count, least in (
        ("trials", trials, 1),
        ("finalists", finalists, 0),
        ("pretrain_steps", pretrain_steps, 1),
    ):
        check_at_least(name, count, least)
    wanted = wanted_of(plugins, without_plugins, strict_plugins)
    with _metered(
        dataset, (), encoder, "fast", steps, seed, store, data, device,
        wanted=wanted, progress=progress,
    ) as made:  # fmt: skip
        meter, tell = made.meter, made.tell

        def watch(which: str, trial: Trial) -> None:
            tell(f"{which}: {trial.score:.2f}  {trial.augmentation}")

        def watch_final(finalist: Finalist) -> None:
            read = finalist.reason if finalist.source is None else f"{100 * finalist.source:.1f}"
            tell(f"final: {read}  {finalist.augmentation}")

        way = Shift.parse(shift, meter.pack.domain_names)
        listed = among.split(",") if isinstance(among, str) and among else among
        space = steps_for(meter.catalog, meter.pack.task, [name.strip() for name in listed])
        with raised_by():
            found = searched(meter, way, space, trials, sampler, watch)
            if finalists:
                entrants = found.entrants(finalists)
                final = pretrained(meter, made.dataset, way, entrants, pretrain_steps, watch_final)
                found = replace(found, finalists=final)
        texts = {
            form: rendered(made.dataset.text, meter, found, form) for form in ("markdown", "json")
        }
    return SearchReport(found, texts)


def diagnose_features(
    suite: Any,
    *,
    only: str = "",
    out: Where = None,
    store: Where = None,
    data: Where = None,
    device: str = "auto",
    plugins: Sequence[str | Path] = (),
    without_plugins: Sequence[str] = (),
    strict_plugins: bool = False,
    progress: bool = True,
) -> FeatureReport:
    """How far features of a suite's cells hold class and domain apart, and are healthy.

    Nothing is trained. Of a folder with suite.toml and records/, what the records say. A picture
    (SVG) is written to ``out``, if that is given: how far features tell the domains apart, beside
    target accuracy. The rest is as in `run`.

    BadInput if none of the cells is scored.
    """
    from benchbench.leaderboard.diagnosed_records import diagnosed_records, published_records

    tell = teller(progress)
    if is_board(suite, "records"):
        records = published_records(Path(suite), only, tell)
        name = str(suite)
    else:
        wanted = wanted_of(plugins, without_plugins, strict_plugins)
        with opened(suite, store, data, device, wanted=wanted, progress=progress) as made:
            records = diagnosed_records(made.plan, chosen_cells(made.plan, only), tell)
            name = str(suite) if isinstance(suite, str | Path) else made.plan.suite.name
    if not records:
        raise BadInput(f"none of these cells of {name} is scored yet; run them first")
    if out is not None:
        from benchbench.diagnostics.plots import separation
        from benchbench.store.atomic_files import place_text

        place_text(Path(out), separation(records))
    return FeatureReport(tuple(records))


def judge_predictors(
    folders: str | Path | Sequence[str | Path] = (), *, out: Where = None
) -> PredictorReport:
    """How well connectivity predicts target accuracy, and what else does.

    Each folder is a dataset: it has suite.toml, records/ and connectivity.json, as
    `ConnectivityReport.to_json` gives it. Without one, the points that come with benchbench, which
    `advise` predicts from. A picture (prediction.svg) and the points (fit.json) are written to the
    folder ``out``, if that is given.

    BadInput if a folder lacks one of these, or all points are of one dataset.
    """
    from benchbench.diagnostics.accuracy_prediction import judged, shipped
    from benchbench.diagnostics.prediction_report import write_report
    from benchbench.leaderboard.prediction_points import points_of
    from benchbench.store.atomic_files import make_writable

    place = None if out is None else Path(out)
    if place is not None:
        make_writable(place, f"--out {place}")
    listed = [folders] if isinstance(folders, str | Path) else folders
    points = [point for folder in listed for point in points_of(Path(folder))] or shipped()
    report = PredictorReport(tuple(points), judged(points))
    if place is not None:
        write_report(place, points, report.judged)
    return report


def theory(
    *,
    classes: int = 5,
    domains: int = 2,
    rho: float = 0.5,
    alpha: float = 0.2,
    beta: float = 0.2,
    gamma: float = 0.1,
    inputs: int = 80,
    features: int | None = None,
    seeds: int = 5,
    out: Where = None,
) -> FigureReport:
    """Will a head from one domain be right in others, by the theory of connectivity?

    Two inputs are connected with a probability that depends on whether they share class and domain:
    ``rho`` both, ``alpha`` the class, ``beta`` the domain, ``gamma`` neither (Shen et al. 2022,
    section 4). The figures say what contrastive features of such a graph hold, and what a head
    trained on the first domain reads off them: of the population, and of graphs that ``seeds``
    seeds draw with so many ``inputs`` of each class in each domain. There are classes + domains - 1
    ``features`` if not said. Pictures (SVG) and theory.json are written to the folder ``out``, if
    that is given.

    BadInput if a probability is none, or a count leaves nothing to compare.
    """
    from benchbench.diagnostics.theory import Blocks, Setting, sweeps
    from benchbench.diagnostics.theory_report import figures_and_text
    from benchbench.store.atomic_files import make_writable, place_text

    check_at_least("seeds", seeds, 1)
    k = classes + domains - 1 if features is None else features
    setting = Setting(Blocks(classes, domains, rho, alpha, beta, gamma), inputs, k)
    place = None if out is None else Path(out)
    if place is not None:
        make_writable(place, f"--out {place}")
    points = sweeps(setting, seeds)
    report = FigureReport(*figures_and_text(setting, points, seeds))
    if place is not None:
        from benchbench.diagnostics.theory_plots import write_pictures

        write_pictures(place, setting, points)
        place_text(place / "theory.json", report.to_json() + "\n")
    return report


@dataclass(frozen=True)
class _Metered:
    """What measures connectivity of a dataset, and what was given as objects by its name."""

    meter: Meter
    dataset: Choice
    data: Path
    augmentations: list[str]
    tell: Callable[[str], None]


@contextmanager
def _metered(
    dataset: Any,
    augmentations: Any,
    encoder: Any,
    estimator: Estimator,
    steps: int,
    seed: int,
    store: Where,
    data: Where,
    device: str,
    *,
    wanted: Wanted,
    progress: bool,
) -> Iterator[_Metered]:
    from benchbench.data.dataset_loading import packed
    from benchbench.diagnostics.connectivity_measurement import Meter, usual_encoder
    from benchbench.diagnostics.node_classifiers import Effort
    from benchbench.extension.catalog import load
    from benchbench.extension.objects import Objects
    from benchbench.store.artifacts import Store
    from benchbench.training.device import Machine

    check_at_least("steps", steps, 1)
    home = store_place(store)
    root, tell = data_place(data), teller(progress)
    objects = Objects(load(wanted))
    text = objects.named("dataset", dataset)
    texts = [spelled("augmentation", one, objects) for one in _several(augmentations)]
    network = "" if encoder is None else objects.named("encoder", encoder)
    catalog = objects.whole
    choice = catalog.resolve("dataset", text)
    for one in objects.given:
        tell(one.sentence)
    with store_for(home, objects) as place:
        kept = Store(place)
        kept.check()
        report = counting("decoding", "image", progress)
        pack = packed(choice, root, kept, 0, report)
        meter = Meter(
            catalog,
            pack,
            kept,
            Machine.choose(device, "auto"),
            network or usual_encoder(pack),
            estimator,
            Effort(steps=steps),
            seed,
        )
        yield _Metered(meter, choice, root, texts, tell)


def _several(given: Any) -> list[Any]:
    """What may be given as one or as several."""
    return list(given) if isinstance(given, list | tuple) else [given]
