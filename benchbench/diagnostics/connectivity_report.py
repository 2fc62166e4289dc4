"""What `benchbench diagnose connectivity` found for a shift under an augmentation, as JSON."""

import json
from collections.abc import Sequence
from math import exp
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter
from tabulate import tabulate

from benchbench.diagnostics.connectivity import KINDS, Connectivity, Estimate
from benchbench.diagnostics.connectivity_measurement import Estimator, Measured, Meter
from benchbench.extension.constants import Precision
from benchbench.store.records import Part, read_strictly
from benchbench.suites.suite import Shift


class EstimateTold(Part):
    """A mean test error with its 95 % interval."""

    value: float
    low: float
    high: float
    pairs: int
    rows: int


class ClassTold(Part):
    name: str
    alpha: float  # of the class in both domains
    gamma: float  # of the class and others across the domains


class NodeTold(Part):
    """A class in a domain, and the rows it was told by."""

    class_name: str
    domain: str
    train: int
    val: int
    test: int


class ConnectivityTold(Part):
    """One shift of a dataset under one augmentation."""

    dataset: str
    fingerprint: str
    shift: str
    augmentation: str
    encoder: str
    estimator: Estimator
    labels: Literal["given", "source"]
    steps: int
    seed: int
    precision: Precision
    alpha: EstimateTold
    beta: EstimateTold
    gamma: EstimateTold
    rho: EstimateTold | None
    log_ratios: tuple[float, float]  # log(α/γ), log(β/γ)
    domain: float | None
    classes: tuple[ClassTold, ...]
    nodes: tuple[NodeTold, ...]
    left_out: tuple[str, ...] = ()  # a sentence for each class of a domain with too few rows
    seconds: float
    device: str


def told(
    dataset: str, meter: Meter, shift: Shift, found: tuple[Measured, Connectivity], labels: str
) -> ConnectivityTold:
    measured, result = found
    pack = meter.pack
    whole = [node for node in measured.nodes if not node.half]
    return ConnectivityTold.model_validate(
        {
            "dataset": dataset,
            "fingerprint": pack.fingerprint,
            "shift": str(shift),
            "augmentation": measured.augmentation,
            "encoder": meter.catalog.resolve("encoder", meter.encoder).text,
            "estimator": meter.estimator,
            "labels": labels,
            "steps": meter.effort.steps,
            "seed": meter.seed,
            "precision": meter.machine.precision,
            **{kind: estimate_told(getattr(result, kind)) for kind in KINDS},
            "log_ratios": result.log_ratios,
            "domain": result.domain,
            "classes": tuple(
                ClassTold(name=pack.class_names[label], alpha=alpha, gamma=gamma)
                for label, (alpha, gamma) in result.of_class.items()
            ),
            "nodes": tuple(
                NodeTold(
                    class_name=pack.class_names[node.label],
                    domain=pack.domain_names[node.domain],
                    train=len(node.train),
                    val=len(node.val),
                    test=len(node.test),
                )
                for node in whole
            ),
            "left_out": measured.left_out,
            "seconds": measured.seconds,
            "device": measured.device,
        }
    )  # fmt: skip


def estimate_told(estimate: Estimate | None) -> EstimateTold | None:
    return None if estimate is None else EstimateTold(**vars(estimate))


EVERY = TypeAdapter(tuple[ConnectivityTold, ...])


def read_told(path: Path) -> tuple[ConnectivityTold, ...]:
    """What a file written by `benchbench diagnose connectivity --format json` says."""
    return read_strictly(path, EVERY.validate_json, "does not hold connectivity")


def rendered(found: Sequence[ConnectivityTold], form: str) -> str:
    """As markdown or json."""
    if form == "json":
        fields = [item.model_dump(mode="json") for item in found]
        return json.dumps(fields, indent=1, sort_keys=True, allow_nan=False) + "\n"
    head = ["shift", "augmentation", "α", "β", "γ", "α/γ", "β/γ", "ρ", "domain", "s"]
    body = [
        [
            item.shift,
            item.augmentation.replace("|", "\\|"),
            *(interval(getattr(item, kind)) for kind in ("alpha", "beta", "gamma")),
            *(f"{ratio:.2f}" for ratio in map(exp, item.log_ratios)),
            interval(item.rho),
            "–" if item.domain is None else f"{item.domain:.3f}",
            f"{item.seconds:.0f}",
        ]
        for item in found
    ]
    align = ["left"] * 2 + ["right"] * (len(head) - 2)
    text = tabulate(body, head, tablefmt="github", disable_numparse=True, colalign=align)
    sizes = [node.test for item in found for node in item.nodes]
    left_out = dict.fromkeys(sentence for item in found for sentence in item.left_out)
    return (
        f"{text}\n\n"
        "Test error, with its 95 % interval, of telling augmented rows of two groups apart, from 0 "
        "(never taken for each other) to 0.5 (not to be told apart); mean over pairs of groups: "
        "*α* the same class in two domains, *β* two classes in one domain, *γ* both other. An "
        "augmentation connects the domains where α/γ and β/γ are well above 1. *ρ*: two random "
        "halves of a group; below 0.5 something leaked. *domain*: of telling the domains, whatever "
        f"the class. Groups have {min(sizes)} to {max(sizes)} test rows.\n"
        + "".join(f"\n* {sentence}" for sentence in left_out)
        + "\n" * bool(left_out)
    )


def interval(estimate: EstimateTold | None) -> str:
    if estimate is None:
        return "–"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
