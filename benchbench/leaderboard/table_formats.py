"""A board as Markdown, LaTeX, CSV and JSON."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from statistics import mean, stdev
from typing import Any

from tabulate import tabulate

from benchbench.extension.constants import Rule
from benchbench.leaderboard import escaping
from benchbench.leaderboard.table import LEAST_SEEDS, Board, Entry, Row
from benchbench.store.records import Diagnostics, Record, Validators

FORMS = ("markdown", "csv", "latex", "json")
MARKS = {"method": "", "reference": " (reference)", "ceiling": " (ceiling)", "reported": " (paper)"}
RULES: Mapping[str, str] = {
    "last": "nothing is chosen: the suite's settings, at the end",
    "leave_one_out": "validation accuracy on each source domain that the others carry over to",
    "oracle": f"{Validators.model_fields['target_val'].description}; never ranked by",
    **{
        name: str(field.description)
        for name, field in Validators.model_fields.items()
        if name != "target_val"
    },
}


def render(board: Board, form: str = "markdown") -> str:
    """``form`` is one of FORMS."""
    return {"markdown": markdown, "csv": as_csv, "latex": latex, "json": as_json}[form](board)


def markdown(board: Board) -> str:
    """Tables, and below them what their columns mean and where the numbers come from."""
    parts = [
        table(main_table(board), escaping.markdown, "github", "**{}**"),
        table(rank_table(board), escaping.markdown, "github", "**{}**"),
        table(rule_table(board), escaping.markdown, "github", "**{}**"),
        legend(board),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def html(board: Board) -> str:
    """The tables alone, for a notebook."""
    parts = [
        table(part(board), escaping.html, "unsafehtml", "<b>{}</b>")
        for part in (main_table, rank_table, rule_table)
    ]
    return "\n".join(filter(None, parts))


def latex(board: Board) -> str:
    parts = [
        table(part(board), escaping.latex, "latex_raw", "\\textbf{{{}}}")
        for part in (main_table, rank_table, rule_table)
    ]
    text = "\n\n".join(filter(None, parts)) + "\n"
    for line, rule in (("\\hline\n\\end", "\\bottomrule\n\\end"), ("}\n\\hline", "}\n\\toprule")):
        text = text.replace(line, rule)
    return text.replace("\n\\hline", "\n\\midrule")


Cell = tuple[str, bool]  # its text, and whether it is among the best of its column
Lines = tuple[list[str], list[list[Cell]], int]  # head, body, and how many columns are words


def table(lines: Lines | None, escaped: Callable[[str], str], form: str, bold: str) -> str:
    if lines is None:
        return ""
    head, body, words = lines
    shown = [
        [bold.format(escaped(text)) if best else escaped(text) for text, best in line]
        for line in body
    ]
    align = ["left"] * words + ["right"] * (len(head) - words)
    return tabulate(
        shown, [*map(escaped, head)], tablefmt=form, disable_numparse=True, colalign=align
    )


def main_table(board: Board) -> Lines:
    ranks, checked = bool(board.ranked), any(row.level for row in board.rows)
    head = ["method", "reads", "sees", "readout", *board.shifts, "mean", "95 %"]
    head = (["rank"] if ranks else []) + head
    head += [f"vs {board.compares}"] if board.compares else []
    head += ["source", "images", "s", *board.columns, *(["checked"] if checked else [])]
    best = best_of(board)
    body: list[list[Cell]] = []
    for row in board.rows:
        line: list[Cell] = [(rank(row), False)] if ranks else []
        line += [(row.method + MARKS[row.group], False)]
        line += [(text, False) for text in (row.reads, row.sees, row.readout)]
        line += [(said(row.entries[s]), row.entries[s] in best[s]) for s in board.shifts]
        line += [(spread(row.average), bool(row.ranks and row.ranks.tie == 1))]
        line += [(between(row.interval), False)]
        line += [(difference(row), False)] if board.compares else []
        line += [(spread(row.source), False), (counted(row.images_seen), False)]
        line += [("–" if row.seconds is None else f"{row.seconds:.0f}", False)]
        line += [(figure(row.diagnostics.get(name, ())), False) for name in board.columns]
        line += [(row.level.level if row.level else "", False)] if checked else []
        body.append(line)
    return head, body, 4 + ranks


def rank_table(board: Board) -> Lines | None:
    """More ways to order the methods that can be ranked."""
    if not board.ranked:
        return None
    head = ["rank", "method", "mean rank", "Borda", "IQM", "worst", "worst shift"]
    body = [
        [
            (text, False)
            for text in (
                rank(row),
                row.method,
                f"{r.mean_rank:.1f}",
                f"{r.borda:g}",
                f"{r.iqm:.1f}",
                f"{r.worst:.1f}",
                r.worst_shift,
            )
        ]
        for row in board.ranked
        if (r := row.ranks)
    ]
    return head, body, 2


def rule_table(board: Board) -> Lines | None:
    """The mean by every rule of selection, and what the oracle would add to the board's."""
    if not board.rules:
        return None
    head = ["method", *map(rule_name, board.rules), "oracle gap"]
    body = []
    for row in board.rows:
        if row.draws:
            told = [row.by_rule.get(rule) for rule in board.rules]
            line = [row.method, *("–" if v is None else f"{v:.1f}" for v in told)]
            gap = row.oracle_gap
            body.append([(text, False) for text in (*line, "–" if gap is None else tenths(gap))])
    return head, body, 1


def best_of(board: Board) -> dict[str, list[Entry]]:
    """The highest entries of every shift, of methods that are ranked."""
    found: dict[str, list[Entry]] = {}
    for shift in board.shifts:
        entries = [row.entries[shift] for row in board.ranked]
        top = max((mean(entry.values) for entry in entries), default=None)
        found[shift] = [entry for entry in entries if mean(entry.values) == top]
    return found


def rank(row: Row) -> str:
    """The ranks that cannot be ruled out, and the letter of its tie."""
    if row.ranks is None:
        return "–"
    low, high = row.ranks.low, row.ranks.high
    return f"{low if low == high else f'{low}–{high}'} {letter(row.ranks.tie)}"


def letter(tie: int) -> str:
    """a, b, … z, then aa."""
    more, rest = divmod(tie - 1, 26)
    return (letter(more) if more else "") + chr(ord("a") + rest)


def rule_name(rule: Rule) -> str:
    return rule.replace("_", " ")


def said(entry: Entry) -> str:
    lacks = ", ".join(f"{count} {status}" for status, count in entry.lacks.items())
    return (
        f"{spread(entry.values)} ({lacks})"
        if lacks and entry.values
        else lacks or spread(entry.values)
    )


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation (n − 1)."""
    if not values:
        return "–"
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def figure(values: Sequence[float]) -> str:
    """Mean ± standard deviation (n − 1) of a diagnostic, to three digits and to two."""
    if not values:
        return "–"
    return f"{mean(values):.3g}" + (f" ± {stdev(values):.2g}" if len(values) > 1 else "")


def between(interval: tuple[float, float] | None) -> str:
    return "–" if interval is None else f"{interval[0]:.1f} – {interval[1]:.1f}"


def difference(row: Row) -> str:
    """To the baseline, in points; with a star where chance alone would not do it."""
    if row.against is None:
        return "–"
    sure = row.against.p is not None and row.against.p < 0.05
    return tenths(row.against.difference, "+") + ("*" if sure else "")


def tenths(points: float, sign: str = "") -> str:
    """Of which nothing is 0.0, and never −0.0."""
    return f"{round(points, 1) + 0.0:{sign if round(points, 1) else ''}.1f}"


def counted(count: int | None) -> str:
    return "–" if count is None else f"{count:,}"


def explained(columns: Sequence[str]) -> str:
    """A sentence for each of the diagnostics."""
    return "\n".join(
        f"* *{name}*: {Diagnostics.model_fields[name].description}." for name in columns
    )


def as_csv(board: Board) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = [f"{shift} {what}" for shift in board.shifts for what in PER_SHIFT]
    told = [f"{name}{what}" for name in board.columns for what in ("", " sd")]
    rules = [f"by {rule}" for rule in board.rules]
    head = [*DESCRIBED, *columns, *SUMMARY, *rules, *told]
    writer.writerow(map(escaping.csv_cell, head))
    for row in board.rows:
        cells: list[object] = []
        for entry in row.entries.values():
            lacks = " ".join(f"{status}={count}" for status, count in entry.lacks.items())
            cells += [average(entry.values), sd(entry.values), len(entry.values), lacks]
        line = [getattr(row, name) for name in DESCRIBED] + cells + summary(row)
        line += [row.by_rule.get(rule) for rule in board.rules]
        for name in board.columns:
            values = row.diagnostics.get(name, ())
            line += [average(values), sd(values)]
        writer.writerow(map(escaping.csv_cell, line))
    return out.getvalue()


DESCRIBED = ("method", "group", "reads", "sees", "readout")
PER_SHIFT = ("mean", "sd", "seeds", "lacks")
SUMMARY = (
    "mean", "sd", "low", "high", "difference", "difference p", "rank", "rank low", "rank high",
    "tie", "mean rank", "borda", "iqm", "worst", "unranked", "source", "images_seen", "seconds",
    "checked",
)  # fmt: skip


def summary(row: Row) -> list[object]:
    low, high = row.interval or (None, None)
    ranks, against = row.ranks, row.against
    placed: list[object] = [None] * 8
    if ranks:
        placed = [ranks.place, ranks.low, ranks.high, ranks.tie]
        placed += [ranks.mean_rank, ranks.borda, ranks.iqm, ranks.worst]
    compared = [against.difference, against.p] if against else [None, None]
    level = row.level.level if row.level else None
    told = [average(row.source), row.images_seen, row.seconds, level]
    return [
        average(row.average),
        sd(row.average),
        low,
        high,
        *compared,
        *placed,
        row.unranked,
        *told,
    ]


def average(values: Sequence[float]) -> float | None:
    return mean(values) if values else None


def sd(values: Sequence[float]) -> float | None:
    return stdev(values) if len(values) > 1 else None


def as_json(board: Board) -> str:
    """A list of all that is known of every row."""
    return (
        json.dumps([fields_of(row, board) for row in board.rows], indent=1, allow_nan=False) + "\n"
    )


def fields_of(row: Row, board: Board) -> dict[str, Any]:
    plain = {
        name: value
        for name, value in vars(row).items()
        if name not in ("entries", "against", "ranks", "level", "reported", "diagnostics")
    }
    return {
        **plain,
        "entries": {shift: asdict(entry) for shift, entry in row.entries.items()},
        "against": asdict(row.against) if row.against else None,
        "ranks": asdict(row.ranks) if row.ranks else None,
        "level": row.level.model_dump() if row.level else None,
        "reported": row.reported.model_dump() if row.reported else None,
        **({"diagnostics": row.diagnostics} if board.columns else {}),
    }


def legend(board: Board) -> str:
    """What the columns mean, where the numbers come from, and every method in full."""
    records = board.source.records
    lines = [*meanings(board), "", provenance(board), ""]
    if board.columns:
        lines += [
            "Of frozen features, mean over shifts ± sd over seeds; – where a cell lacks them:",
            "",
            explained(board.columns),
            "",
        ]
    first = {record.method: record for record in reversed(records) if record.draw == 0}
    for row in board.rows:
        name = escaping.markdown(row.method)
        if row.reported:
            told = row.reported
            words = (
                escaping.markdown(told.source),
                escaping.link(told.url),
                escaping.markdown(told.note),
            )
            lines.append(f"* **{name}** (paper): {'; '.join(filter(None, words))}")
        elif record := first.get(row.method):
            lines.append(f"* **{name}**: {in_full(record)}{sent(row)}")
    return "\n".join(lines)


def meanings(board: Board) -> list[str]:
    seeds = len(board.source.expected.seeds)
    over = "seeds and test rows" if board.by_row else "seeds"
    lines = [
        f"{board.metric.replace('_', ' ').capitalize()} in percent on test rows of the target "
        f"domain, mean ± sd over training seeds ({seeds}); *95 %*: interval of the mean over "
        f"{over}; *source*: on test rows of the source domain; *images*: rows drawn in training; "
        "*s*: seconds of one cell with all of its stages."
    ]
    if board.compares:
        lines[0] += (
            f" *vs {escaping.markdown(board.compares)}*: difference of means, with a star where a "
            f"paired test over {over} has p < 0.05."
        )
    if board.ranked:
        lines.append(
            "*rank*: the ranks that cannot be ruled out, by who is told better and who worse, and "
            "a letter; methods of one letter cannot be told from the first of them, though perhaps "
            f"from each other (paired tests over {over}, "
            "Holm's correction for all pairs, 5 %), and means of letter a are bold. *mean rank*: "
            "over shifts; *Borda*: methods left behind, summed over shifts; *IQM*: interquartile "
            "mean over shifts and seeds."
        )
    reasons = {row.method: row.unranked for row in board.rows if row.group == "method"}
    if left := {name: why for name, why in reasons.items() if why}:
        named = "; ".join(f"{escaping.markdown(name)}: {why}" for name, why in left.items())
        lines.append(
            f"Ranked is what has all shifts and at least {LEAST_SEEDS} seeds. Not ranked: {named}."
        )
        if any("undecided" in why for why in left.values()):
            lines.append(
                f"*undecided*: {rule_name(board.source.expected.rule)} has nothing to go by there. "
                "Leave one out wants shifts of several sources; entropy, infomax, snd and bnm want "
                "the readouts linear or head, of classes."
            )
    for shift in board.shifts:
        lacking = (
            record.data.unseen
            for record in board.source.records
            if record.shift == shift and record.spec.labels == "source"
        )
        if unseen := next(filter(None, lacking), None):
            sentence = escaping.markdown(unseen.sentence(shift, "source"))
            lines.append(f"{sentence[0].upper()}{sentence[1:]}.")
    if board.source.stale:
        whys = sorted(set(board.source.stale.values()))
        lines.append(
            f"*stale*: {len(board.source.stale)} records are not what a run would give today "
            f"({escaping.markdown('; '.join(whys))}); `benchbench run --only stale` renews them."
        )
    if board.rules:
        rule, draws = board.source.expected.rule, board.source.expected.draws
        among = f", of {draws} draws for every method" if draws > 1 else ""
        lines.append(
            f"Settings and snapshots are chosen by *{rule_name(rule)}*{among}. The same runs by "
            "other rules: "
            + "; ".join(f"*{rule_name(name)}*, {RULES[name]}" for name in board.rules)
            + ". *oracle gap*: what the oracle's choice would add."
        )
    return lines


def provenance(board: Board) -> str:
    records = board.source.records
    told: Callable[[Callable[[Record], str]], str] = lambda field: "; ".join(  # noqa: E731
        escaping.markdown(text) for text in sorted({field(record) for record in records})
    )
    return (
        f"Protocol {told(lambda r: r.protocol)}; data {told(lambda r: r.data.dataset)}, "
        f"fingerprint {told(lambda r: r.data.fingerprint[:12])}; what a readout leaves open is "
        f"chosen on validation rows of the source; precision {told(lambda r: r.spec.precision)}; "
        f"{told(lambda r: r.environment.device)}, {told(lambda r: str(r.environment.threads))} "
        f"threads, torch {told(lambda r: r.environment.packages.get('torch', 'unknown'))}."
    )


def in_full(record: Record) -> str:
    """Encoder, stages and readout with all options, as Markdown."""
    spec = record.spec
    stages = [
        f"{escaping.code(s.objective)} on {escaping.code(s.augmentation)}, sees {s.sees}, "
        f"{s.steps} × {s.batch_size} rows, lr {s.lr:g}"
        for s in spec.chain
    ]
    chain = "; then ".join(stages) or "untrained"
    return f"{escaping.code(spec.encoder)}; {chain}; read by {escaping.code(spec.readout)}"


def sent(row: Row) -> str:
    """Who sent a method's records, and what was found."""
    if row.level is None:
        return ""
    level = row.level
    words = [escaping.markdown(f"sent by {level.submitter or 'somebody'}, {level.level}")]
    words += [escaping.link(url) for url in (level.paper, level.code)]
    words += [escaping.markdown(f"flag: {flag}") for flag in level.flags]
    return f" ({'; '.join(filter(None, words))})"
