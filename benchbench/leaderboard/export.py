"""Records as rows of a table, for programs that analyse them. docs/export.md says what columns are.

One row for each domain of each state of a record: its end, and its snapshots; one for a record
without scores.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from benchbench.extension.errors import BadInput
from benchbench.store.records import Diagnostics, Record, Score, Selection, StageSpec, Validators

Value = str | int | float | bool | None
Row = dict[str, Value]
Kind = Literal["text", "whole", "real", "truth"]
FIXED: dict[str, Kind] = {
    **dict.fromkeys(("suite", "protocol", "cell_id", "method", "shift"), "text"),
    **dict.fromkeys(("seed", "draw", "split_seed", "hparams_seed"), "whole"),
    **dict.fromkeys(("status", "reason", "state"), "text"),
    "step": "whole",
    **dict.fromkeys(("domain", "role"), "text"),
    **dict.fromkeys(("value", "accuracy", "per_class_mean"), "real"),
    "n_test": "whole",
    **dict.fromkeys(("groups", "selection_rule", "selection_chosen"), "text"),
    **dict.fromkeys((f"validator_{name}" for name in Validators.model_fields), "real"),
    **dict.fromkeys((f"diagnostic_{name}" for name in Diagnostics.model_fields), "real"),
    **dict.fromkeys(("dataset", "data_fingerprint", "data_licence", "metric"), "text"),
    **dict.fromkeys(("sources", "targets"), "text"),
    **dict.fromkeys(("n_labelled", "n_unlabelled"), "whole"),
    **dict.fromkeys(("encoder", "readout", "labels", "precision"), "text"),
    "stages": "whole",
    "started": "text",
    **dict.fromkeys(
        (f"{name}_seconds" for name in ("stages", "features", "readout", "validate", "diagnose")),
        "real",
    ),
    "images_seen": "whole",
    "peak_memory_gb": "real",
    **dict.fromkeys(("encoder_sha256", "predictions_sha256"), "text"),
    **dict.fromkeys(("benchbench", "python", "platform", "device"), "text"),
    "threads": "whole",
    "plugins": "text",
}
OF_STAGE: dict[str, Kind] = {  # after `stage1_`, `stage2_` and so on
    **dict.fromkeys(("objective", "augmentation", "weak", "small"), "text"),
    **dict.fromkeys(("sees", "reads", "domains"), "text"),
    **dict.fromkeys(("steps", "batch_size"), "whole"),
    **dict.fromkeys(("lr", "weight_decay", "warmup"), "real"),
    "optimizer": "text",
    "parts": "whole",
    "key": "text",
    "seconds": "real",
    "reused": "truth",
    "device": "text",
    "compiled": "truth",
    "processes": "whole",
}
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet may take for the start of one


def columns_of(records: Sequence[Record]) -> dict[str, Kind]:
    """The table's columns in their order, and what is in each.

    The fixed ones are there always; those of stages and versions as far as a record has them.
    """
    depth = max((len(record.spec.chain) for record in records), default=0)
    packages = sorted({name for record in records for name in record.environment.packages})
    stages = {f"stage{n + 1}_{name}": k for n in range(depth) for name, k in OF_STAGE.items()}
    versions: dict[str, Kind] = {f"version_{name}": "text" for name in packages}
    return {**FIXED, **stages, **versions}


def rows_of(records: Iterable[Record]) -> list[Row]:
    """Every record's rows; of a snapshot, diagnostics are not known, and left out."""
    rows = []
    for record in records:
        about = of_record(record)
        for scores, words in states_of(record):
            rows += [about | words | of_score(score) for score in scores] or [about | words]
    return rows


def states_of(record: Record) -> list[tuple[tuple[Score, ...], Row]]:
    """Scores and what else is said of a record's end, and of its snapshots in their order."""
    last = record.spec.chain[-1].steps if record.spec.chain else 0
    tells = record.diagnostics.model_dump() if record.diagnostics else {}
    end: Row = {"state": "end", "step": last, **of_state(record.selection, record.validators)}
    end |= {f"diagnostic_{name}": value for name, value in tells.items()}
    found = [(record.scores, end)]
    for snapshot in record.snapshots:
        words: Row = {"state": "snapshot", "step": snapshot.step}
        words |= of_state(snapshot.selection, snapshot.validators)
        found.append((snapshot.scores, words))
    return found


def of_state(selection: Selection | None, validators: Validators | None) -> Row:
    row: Row = {}
    if selection:
        row |= {"selection_rule": selection.rule, "selection_chosen": in_json(selection.chosen)}
    if validators:
        row |= {f"validator_{name}": value for name, value in validators.model_dump().items()}
    return row


def of_score(score: Score) -> Row:
    value = score.accuracy if score.value is None else score.value
    return {
        "domain": score.domain,
        "role": score.role,
        "value": value,
        "accuracy": score.accuracy,
        "per_class_mean": score.per_class_mean,
        "n_test": score.n,
        "groups": in_json({part.group: part.value for part in score.groups}),
    }


def of_record(record: Record) -> Row:
    """What all rows of a record have in common."""
    spec, data, seeds, environment = record.spec, record.data, record.seeds, record.environment
    row: Row = {
        **{n: getattr(record, n) for n in ("suite", "protocol", "cell_id", "method", "shift")},
        **{n: getattr(record, n) for n in ("draw", "status", "reason")},
        "seed": seeds.train,
        "split_seed": seeds.split,
        "hparams_seed": seeds.hparams,
        **{n: getattr(data, n) for n in ("dataset", "metric", "n_labelled", "n_unlabelled")},
        "data_fingerprint": data.fingerprint,
        "data_licence": data.licence,
        "sources": " + ".join(data.sources),
        "targets": " + ".join(data.targets),
        **{n: getattr(spec, n) for n in ("encoder", "readout", "labels", "precision")},
        "stages": len(spec.chain),
        **environment.model_dump(exclude={"packages"}),
        **{f"version_{name}": version for name, version in environment.packages.items()},
        "plugins": in_json(
            {p.name: f"{p.distribution} {p.version} {p.digest}" for p in record.plugins if p.used}
        ),
    }
    for number, stage in enumerate(spec.chain, 1):
        row |= {f"stage{number}_{name}": value for name, value in of_stage(stage).items()}
    if record.artifacts:
        row["encoder_sha256"] = record.artifacts.encoder_sha256
        row["predictions_sha256"] = record.artifacts.predictions_sha256
        row |= {f"stage{n}_key": key for n, key in enumerate(record.artifacts.stages, 1)}
    if cost := record.cost:
        row |= cost.model_dump(exclude={"stages"})
        row["stages_seconds"] = sum(stage.seconds for stage in cost.stages)
        for number, spent in enumerate(cost.stages, 1):
            row |= {f"stage{number}_{n}": value for n, value in spent.model_dump().items()}
    return row


def of_stage(stage: StageSpec) -> Row:
    lists = {"reads": ", ".join(stage.reads), "domains": " + ".join(stage.domains)}
    return stage.model_dump() | lists


def in_json(values: Mapping[str, object]) -> str | None:
    return json.dumps(values, sort_keys=True, ensure_ascii=False) if values else None


def as_csv(records: Sequence[Record]) -> bytes:
    """UTF-8. A text that a spreadsheet may run as a formula begins with an apostrophe (CWE-1236).

    An unknown number is an empty cell.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*columns_of(records)], restval="")
    writer.writerow({name: harmless(name) for name in writer.fieldnames})
    writer.writerows({n: harmless(v) for n, v in row.items()} for row in rows_of(records))
    return text.getvalue().encode()


def harmless(value: Value) -> Value:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def as_jsonl(records: Sequence[Record]) -> bytes:
    """UTF-8, an object to a line, with every column."""
    blank = dict.fromkeys(columns_of(records))
    lines = [
        json.dumps(blank | row, ensure_ascii=False, allow_nan=False) for row in rows_of(records)
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def as_parquet(records: Sequence[Record]) -> bytes:
    """Columns of one type each, also where all is unknown. BadInput without pandas and pyarrow."""
    try:
        import pandas
        import pyarrow  # noqa: F401  pandas uses it
    except ImportError:
        raise BadInput(
            "parquet is written by pandas and pyarrow, which are not installed; "
            'pip install "benchbench-shift[export]", or write FILE.csv'
        ) from None
    kinds = {"text": "string", "whole": "Int64", "real": "Float64", "truth": "boolean"}
    rows = rows_of(records)
    table = {
        name: pandas.array([row.get(name) for row in rows], dtype=kinds[kind])
        for name, kind in columns_of(records).items()
    }
    content = io.BytesIO()
    pandas.DataFrame(table).to_parquet(content, engine="pyarrow", index=False)
    return content.getvalue()


TABLES: dict[str, Callable[[Sequence[Record]], bytes]] = {
    ".csv": as_csv,
    ".jsonl": as_jsonl,
    ".parquet": as_parquet,
}
