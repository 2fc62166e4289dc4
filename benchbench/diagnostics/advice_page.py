"""Advice as a page that needs nothing else, in words, and as JSON."""

import base64
import io
import json
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from torch import Tensor

from benchbench.data.inspection import picture
from benchbench.data.pack import Pack
from benchbench.diagnostics.advice import (
    LEAST_GAP,
    POOR,
    VIEWS,
    Advice,
    ClassAdvice,
    Option,
    Pair,
    TargetAdvice,
)
from benchbench.extension.contracts import as_read
from benchbench.extension.grammar import parse, split_pipeline

TEMPLATE = files("benchbench") / "diagnostics" / "advice.html"
SUITE = """\
name     = "transfer"
dataset  = {dataset}
shifts   = [{shift}]
seeds    = [0, 1, 2]
encoder  = {encoder}
baseline = "erm"

[stage]
augmentation = {augmentation}
steps        = 2000
batch_size   = 128
lr           = 1e-3

[[method]]
chain = "simclr"

[[method]]
chain   = "erm"
sees    = "source"
readout = "head"
"""


def page(advice: Advice, pack: Pack) -> str:
    """HTML: styles and pictures are inside, and nothing is fetched."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        advice=advice,
        percent=lambda share: f"{100 * share:.0f}",
        short=short,
        shown=shown,
        believed=believed,
        pictures=lambda pair: pictures(pair, pack),
        suite=lambda item: suite(advice, item),
        classes=len(pack.class_names),
        least_gap=LEAST_GAP,
        poor=POOR,
        views=VIEWS,
        version=version("benchbench-shift"),
    )


def shown(classes: Sequence[ClassAdvice]) -> list[ClassAdvice]:
    """Those with pictures: the classes that are connected least, and those that are most."""
    return [item for item in classes if item.connects]


def believed(item: TargetAdvice, option: Option) -> bool:
    """Whether what is predicted with an option may be shown as a prediction."""
    return not item.reasons and not option.doubts


def short(augmentation: str) -> str:
    """Its steps by name alone."""
    return " | ".join(parse(step)[0] for step in split_pipeline(augmentation)) or "none"


def pictures(pair: Pair, pack: Pack) -> list[str]:
    """The image, its view, the other's view, the other image, as data URIs."""
    source, target = (as_read(pack.inputs[row : row + 1])[0] for row in (pair.source, pair.target))
    return [data_uri(image) for image in (source, pair.source_view, pair.target_view, target)]


def data_uri(image: Tensor) -> str:
    out = io.BytesIO()
    picture(image).save(out, format="PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def suite(advice: Advice, item: TargetAdvice) -> str:
    """A suite that tries what is advised for a target."""
    told = item.best.connectivity
    return SUITE.format(
        dataset=json.dumps(advice.dataset, ensure_ascii=False),
        shift=json.dumps(told.shift, ensure_ascii=False),
        encoder=json.dumps(told.encoder),
        augmentation=json.dumps(item.best.augmentation, ensure_ascii=False),
    )


def in_words(item: TargetAdvice) -> str:
    """A line with the prediction; or, if it cannot tell, why, what was measured, what to do."""
    if not item.reasons:
        best = item.best
        return (
            f"{item.target}: {item.verdict}; {100 * best.accuracy:.0f} % predicted "
            f"({100 * best.low:.0f} to {100 * best.high:.0f}) with {best.augmentation}; two "
            f"classifiers of the source agree on {100 * item.agreement:.0f} % of its rows"
        )
    measured = [
        f"α {said.alpha.value:.4f}, β {said.beta.value:.4f}, γ {said.gamma.value:.4f}, "
        f"α/γ {option.ratios[0]:.1f}, β/γ {option.ratios[1]:.1f} with {option.augmentation}"
        for option in item.options
        for said in [option.connectivity]
    ]
    parts = {"why": item.reasons, "measured": measured, "what to do next": item.next_steps}
    lines = [f"{item.target}: {item.verdict}"]
    for name, sentences in parts.items():
        lines += [f"  {name}:", *(f"  * {sentence}" for sentence in sentences)]
    return "\n".join(lines)


def as_json(advice: Advice) -> str:
    """All figures, without pictures: of pairs, the rows of the data.

    Accuracy and interval are null where nothing speaks for them: of every option of a target of
    which it "cannot tell", and of an option with doubts of its own.
    """
    targets: list[dict[str, Any]] = []
    for item in advice.targets:
        said = ("target", "verdict", "reasons", "next_steps", "labels_to_settle", "agreement",
                "source_accuracy", "left_out")  # fmt: skip
        fields = {name: getattr(item, name) for name in said}
        options = [
            {
                "accuracy": option.accuracy if believed(item, option) else None,
                "interval": [option.low, option.high] if believed(item, option) else None,
                "doubts": option.doubts,
                **option.connectivity.model_dump(mode="json"),
            }
            for option in item.options
        ]
        classes = [
            {
                "name": one.name,
                "ratio": one.ratio,
                "connects": [[pair.source, pair.target] for pair in one.connects],
                "separates": [[pair.source, pair.target] for pair in one.separates],
            }
            for one in item.classes
        ]
        poor = [one.name for one in item.poor]
        found = {"options": options, "poor": poor, "classes": classes}
        targets.append(fields | found | {"suite": suite(advice, item)})
    whole = {
        "dataset": advice.dataset,
        "sources": advice.sources,
        "goal": advice.goal,
        "labels": advice.labels,
        "trust": advice.trust,
        "targets": targets,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
