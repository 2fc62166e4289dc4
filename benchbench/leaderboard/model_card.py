"""What a model hub shows of a method: a model card, with results as programs read them."""

import json
import re
from collections.abc import Iterator
from statistics import mean
from typing import Any

from benchbench.extension.errors import BadInput
from benchbench.extension.grammar import instead, parse
from benchbench.leaderboard import escaping
from benchbench.leaderboard import table_formats as formats
from benchbench.leaderboard.page import Evidence, command
from benchbench.leaderboard.selection import State
from benchbench.leaderboard.table import Board, Row
from benchbench.store.records import Record

TEXT_ENCODERS = {"hugging_face", "transformer"}  # records do not say what the inputs are
METRICS = {"macro_f1": "f1", "pearson": "pearsonr"}  # as the hub names them
FROM_TIMM = """\
```python
import safetensors.torch
import timm

tensors = safetensors.torch.load_file("{file}")
start = "encoder.model."
encoder = timm.create_model("{model}", num_classes=0)
state = {{n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}}
encoder.load_state_dict(state)
```

Images go in as the model's `pretrained_cfg` normalises them."""
FROM_PLUGIN = """\
```python
import safetensors.torch

tensors = safetensors.torch.load_file("{file}")
state = {{n.removeprefix("encoder."): t for n, t in tensors.items() if n.startswith("encoder.")}}
```

This is the `state_dict` of {encoder}, which the plugin {plugin} builds."""


def card(board: Board, method: str) -> str:
    """A README.md: YAML, then Markdown. BadInput if nothing was measured of the method."""
    evidence = Evidence.of(board)
    rows = {row.method: row for row in board.rows if row.group != "reported"}
    if method not in rows:
        raise BadInput(f"no method is named {method!r}; {instead(method, [*rows])}")
    if not evidence.records.get(method):
        raise BadInput(f"nothing was measured yet of {method}")
    row, first = rows[method], evidence.records[method][0]
    front = "\n".join(yaml(front_matter(board, row, first)))
    parts = [
        f"---\n{front}\n---",
        f"# {escaping.markdown(method)}",
        f"{formats.in_full(first)}.",
        *results(board, row),
        *loading(board, evidence, row, first),
        "## Run it again",
        f"```sh\n{escaping.visible(command(board.source.name, method))}\n```",
        *limits(board, row, first),
        "## Licence",
        f"Of the data: {escaping.markdown(first.data.licence)}. Of the weights: whoever publishes "
        "them says it, here and as `license` above.",
    ]
    return "\n\n".join(parts) + "\n"


def front_matter(board: Board, row: Row, first: Record) -> dict[str, Any]:
    """As https://github.com/huggingface/hub-docs/blob/main/modelcard.md has it."""
    metric = METRICS.get(board.metric, board.metric)
    found: dict[str, Any] = {"license": "unknown"}
    if timm_model(first):
        found["library_name"] = "timm"
    return found | {
        "tags": ["benchbench", "domain-shift", first.protocol],
        "metrics": [metric],
        "model-index": [{"name": row.method, "results": [*entries(board, row, first, metric)]}],
    }


def entries(board: Board, row: Row, first: Record, metric: str) -> Iterator[dict[str, Any]]:
    """One for each shift of which all seeds are scored."""
    name = first.data.dataset.partition("(")[0]
    for shift, entry in row.entries.items():
        if not entry.values or entry.lacks:
            continue
        seeds = len(entry.values)
        yield {
            "task": {"type": task_of(board, first)},
            "dataset": {
                "type": name,
                "name": first.data.dataset,
                "config": shift,
                "split": "test",
                "args": {"fingerprint": first.data.fingerprint},
            },
            "metrics": [
                {
                    "type": metric,
                    "value": round(mean(entry.values), 2),
                    "name": f"{board.metric} on the target, %, mean over {seeds} seeds",
                    "verified": False,  # true is for what Hugging Face itself has measured
                }
            ],
        }


def task_of(board: Board, first: Record) -> str:
    if any(score.accuracy is None for score in first.scores):
        return "other"
    kind = "text" if first.spec.encoder.partition("(")[0] in TEXT_ENCODERS else "image"
    return f"{kind}-classification"


def yaml(value: Any, indent: str = "") -> Iterator[str]:
    """Lines. Scalars are JSON's, which YAML reads as they are; what is hidden in them is not."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, dict | list) and inner:
                yield f"{indent}{key}:"
                yield from yaml(inner, indent + "  ")
            else:
                yield f"{indent}{key}: {scalar(inner)}"
    else:
        for inner in value:
            if isinstance(inner, dict):
                first, *more = yaml(inner, indent + "  ")
                yield f"{indent}- {first.lstrip()}"
                yield from more
            else:
                yield f"{indent}- {scalar(inner)}"


def scalar(value: Any) -> str:
    shown = escaping.visible(value) if isinstance(value, str) else value
    return json.dumps(shown, ensure_ascii=False, allow_nan=False)


def results(board: Board, row: Row) -> list[str]:
    head = ["shift", f"{board.metric.replace('_', ' ')}, %"]
    body = [[(shift, False), (formats.said(entry), False)] for shift, entry in row.entries.items()]
    body.append([("mean", False), (formats.spread(row.average), False)])
    told = f"Mean ± standard deviation over {len(board.source.expected.seeds)} training seeds."
    if row.against:
        told += f" Against {escaping.markdown(board.compares or '')}: "
        told += f"{formats.difference(row)} points, "
        told += "with a star where p < 0.05."
    return [
        "## Results",
        formats.table((head, body, 1), escaping.markdown, "github", "**{}**"),
        told,
    ]


def loading(board: Board, evidence: Evidence, row: Row, first: Record) -> list[str]:
    """How to load the encoder of every shift and seed; nothing where none was trained."""
    picked = evidence.picked[row.method]
    files = [
        (shift, seed, state)
        for (shift, seed), state in picked.items()
        if state and state.record.artifacts and state.record.artifacts.stages
    ]
    if not files:
        return []
    body = [[(s, False), (str(n), False), (file_of(state), False)] for s, n, state in files]
    model = timm_model(first)
    builders = [p.name for p in first.plugins if any(u.startswith("encoder ") for u in p.used)]
    how = (FROM_TIMM if model else FROM_PLUGIN).format(
        file=file_of(files[0][2]),
        model=model,
        encoder=escaping.code(first.spec.encoder),
        plugin=escaping.code(", ".join(builders) or "unknown"),
    )
    if any(state.step is not None for _, _, state in files):
        how += "\n\nScores of snapshots are not those of the files, which hold the end of a stage."
    table = formats.table(
        (["shift", "seed", "file"], body, 3), escaping.markdown, "github", "**{}**"
    )
    return ["## Load an encoder", how, "Files are named as in a bundle of benchbench:", table]


def file_of(state: State) -> str:
    """As `benchbench.leaderboard.bundle` names it. The key is a hash, whatever the record says."""
    artifacts = state.record.artifacts
    key = artifacts.stages[-1] if artifacts else ""
    return f"encoders/{re.sub('[^0-9a-f]', '', key)}.safetensors"


def timm_model(first: Record) -> str | None:
    """The timm model that an encoder is, if it is one as timm has it."""
    try:
        name, options = parse(first.spec.encoder)
    except BadInput:
        return None
    model, changed = options.get("model"), options.get("small_stem") or options.get("projection")
    if name == "timm" and not changed and isinstance(model, str) and re.fullmatch(r"[\w.]+", model):
        return model
    return None


def limits(board: Board, row: Row, first: Record) -> list[str]:
    """What the numbers are, and are not."""
    wanted = board.source.expected
    chosen = f"by *{formats.rule_name(wanted.rule)}* ({formats.RULES[wanted.rule]})"
    lines = [
        f"Protocol {escaping.markdown(first.protocol)}, data fingerprint "
        f"{escaping.markdown(first.data.fingerprint[:12])}, benchbench "
        f"{escaping.markdown(first.environment.benchbench)}: numbers of another protocol or of "
        "other data cannot be compared with these.",
        "The encoder was trained for one shift between two sets of domains; of other domains the "
        "numbers say nothing.",
    ]
    if row.draws:
        lines.append(
            f"Of {wanted.draws} draws of hyper-parameters and their snapshots, the one counts that "
            f"is chosen {chosen}."
        )
    if row.group == "ceiling":
        lines.append("It was trained on labels of the target: it is a ceiling, and no method.")
    if row.unranked:
        lines.append(f"It is not ranked on its board: {escaping.markdown(row.unranked)}.")
    if row.level:
        lines.append(f"The records were sent in, and checked up to the level *{row.level.level}*.")
        lines += [f"To be looked at: {escaping.markdown(flag)}." for flag in row.level.flags]
    else:
        lines.append("The records are of those who keep the board; nobody else has checked them.")
    return ["## Limits", "\n".join(f"* {line}" for line in lines)]
