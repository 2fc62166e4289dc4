"""Boards are a function of records; what is missing is shown as missing."""

import csv
import io
import json
from pathlib import Path
from statistics import mean, stdev

import pytest
from audiences import Silent
from tiny import SUITE

from benchbench.execution.local import run_cells
from benchbench.extension.errors import BadInput
from benchbench.leaderboard import table_formats as formats
from benchbench.leaderboard.board_folder import Expected, Source, expected_of, of_folder
from benchbench.leaderboard.diagnostics_table import features_table
from benchbench.leaderboard.publishing import generated
from benchbench.leaderboard.table import ALL_DIAGNOSTICS, board, diagnostics_named
from benchbench.store.records import Diagnostics, Record

ROOT = Path(__file__).parents[2]
BOARD = ROOT / "leaderboards" / "digits"


def made(records, wanted=None, columns=()):
    return board(Source("made", wanted or expected_of(records), tuple(records)), columns)


def rows(records, wanted, columns=()):
    return made(records, wanted, columns).rows


def render(records, wanted=None, form="markdown", columns=()):
    return formats.render(made(records, wanted, columns), form)


def published(folder, form="markdown"):
    return formats.render(board(of_folder(folder)), form)


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Record:
    """A real record, to be varied."""
    from tiny import make_plan

    folder = tmp_path_factory.mktemp("board")
    plan = make_plan(SUITE, folder / "store", folder)
    return run_cells(plan, plan.cells, Silent())[0]


def record(template, method, shift, seed, target, source=0.9, **changes):
    scores = tuple(
        score.model_copy(update={"accuracy": right, "value": right})
        for score in template.scores
        for right in (target if score.role == "target" else source,)
    )
    seeds = template.seeds.model_copy(update={"train": seed})
    common = {"method": method, "shift": shift, "seeds": seeds, "scores": scores}
    return template.model_copy(update={**common, "cell_id": f"{method}{shift}{seed}", **changes})


SHIFTS = ("a > b", "b > a")
WANTED = Expected(("erm", "simclr"), SHIFTS, (0, 1), "erm")


@pytest.fixture
def records(template):
    scores = {
        ("erm", "a > b"): (0.5, 0.6),
        ("erm", "b > a"): (0.3, 0.4),
        ("simclr", "a > b"): (0.7, 0.9),
        ("simclr", "b > a"): (0.6, 0.6),
    }
    return [
        record(template, method, shift, seed, value)
        for (method, shift), values in scores.items()
        for seed, value in enumerate(values)
    ]


def test_means_spreads_and_differences_are_those_of_the_seeds(records):
    first, second = rows(records, WANTED)
    assert (first.method, second.method) == ("simclr", "erm")
    assert formats.said(first.entries["a > b"]) == f"{mean((70, 90)):.1f} ± {stdev((70, 90)):.1f}"
    assert first.average == pytest.approx((65, 75))
    assert first.against.difference == pytest.approx(70 - 45)
    assert second.against is None
    assert first.source == pytest.approx((90, 90))


def test_a_missing_or_failed_cell_is_shown_and_never_averaged_away(records, template):
    gone = records.pop()
    failed = record(template, "erm", "b > a", 1, 0.0, status="diverged", scores=(), reason="NaN")
    kept = [r for r in records if r.cell_id != failed.cell_id]
    table = {row.method: row for row in rows([*kept, failed], WANTED)}
    assert formats.said(table["simclr"].entries[gone.shift]) == "1 missing"
    assert formats.said(table["erm"].entries["b > a"]) == "1 diverged"
    assert formats.said(table["erm"].entries["a > b"]) == "55.0 ± 7.1"
    for row in table.values():
        assert row.average == () and row.against is None
    shown = render([*kept, failed], WANTED)
    assert "1 missing" in shown and "1 diverged" in shown


def test_a_method_without_any_record_has_a_row(records):
    wanted = Expected(("erm", "simclr", "dann"), SHIFTS, (0, 1), "erm")
    last = rows(records, wanted)[-1]
    assert (last.method, formats.said(last.entries["a > b"])) == ("dann", "2 missing")


def test_references_and_ceilings_are_not_ranked_with_methods(records, template):
    spec = template.spec.model_copy(update={"labels": "target"})
    ceilings = [record(template, "best", s, n, 0.99, spec=spec) for s in SHIFTS for n in (0, 1)]
    spec = template.spec.model_copy(update={"chain": ()})
    random = [record(template, "random", s, n, 0.98, spec=spec) for s in SHIFTS for n in (0, 1)]
    wanted = Expected(("best", "random", "erm", "simclr"), SHIFTS, (0, 1), "erm")
    table = rows([*records, *ceilings, *random], wanted)
    assert [row.method for row in table] == ["simclr", "erm", "random", "best"]


def test_the_order_of_records_does_not_matter(records):
    for form in ("markdown", "csv", "latex", "json"):
        assert render(records, WANTED, form) == render(records[::-1], WANTED, form)


def test_two_records_of_one_cell_are_refused(records):
    double = records[0].model_copy(update={"cell_id": "another"})
    with pytest.raises(BadInput, match="two records, .* are of erm · a > b · 0"):
        rows([*records, double], WANTED)


def test_records_of_different_data_are_not_averaged(records):
    data = records[0].data.model_copy(update={"fingerprint": "another"})
    with pytest.raises(BadInput, match="the records are of several data: .*another"):
        render([records[0].model_copy(update={"data": data}), *records[1:]], WANTED)


def test_a_published_suite_may_spell_its_shifts_freely(records, tmp_path):
    (tmp_path / "records").mkdir()
    text = SUITE.replace('["left > right"]', '["a>b", "b  >  a"]').replace("[0]", "[0, 1]")
    for method in ("erm", "simclr"):
        text += f'[[method]]\nname = "{method}"\nchain = "erm"\n'
    text = text.replace('[[method]]\nchain = "simclr"\n', "", 1)
    (tmp_path / "suite.toml").write_text(text)
    for n, r in enumerate(records):
        (tmp_path / "records" / f"{n}.json").write_text(r.text())
    assert "missing" not in published(tmp_path, "csv").replace("lacks", "")
    (tmp_path / "suite.toml").write_text(text.replace('["a>b", "b  >  a"]', '"all"'))
    for path, r in zip(sorted((tmp_path / "records").iterdir()), records, strict=True):
        sides = r.shift.split(" > ")
        data = r.data.model_copy(update={"sources": (sides[0],), "targets": (sides[1],)})
        path.write_text(r.model_copy(update={"data": data}).text())
        if r.shift == "b > a":
            path.unlink()
    assert "missing=2" in published(tmp_path, "csv")


def test_every_format_says_the_same(records):
    lines = list(csv.DictReader(io.StringIO(render(records, WANTED, "csv"))))
    assert [line["method"] for line in lines] == ["simclr", "erm"]
    assert float(lines[0]["mean"]) == pytest.approx(70)
    assert float(lines[0]["a > b sd"]) == pytest.approx(stdev((70, 90)))
    raw = json.loads(render(records, WANTED, "json"))
    assert raw[0]["entries"]["a > b"]["values"] == pytest.approx([70, 90])
    latex = render(records, WANTED, "latex")
    assert r"\toprule" in latex and r"80.0 $\pm$ 14.1" in latex
    assert "| simclr " in render(records, WANTED, "markdown")


def test_a_name_with_a_pipe_does_not_break_the_table(records):
    renamed = [r.model_copy(update={"method": "a|b"}) for r in records if r.method == "erm"]
    shown = render(renamed)
    table = [line for line in shown.splitlines() if line.startswith("|")]
    assert r"a\|b" in shown
    assert len({line.replace(r"\|", "").count("|") for line in table}) == 1


BOARDS = sorted(path.parent for path in BOARD.parent.rglob("records"))


@pytest.mark.parametrize(
    "folder", BOARDS, ids=lambda path: path.relative_to(BOARD.parent).as_posix()
)
def test_a_published_board_is_made_of_the_files_beside_it_byte_for_byte(folder):
    for name, content in generated(folder).items():
        assert (folder / name).read_text(encoding="utf-8") == content, name
    assert "missing" not in published(folder, "csv")


@pytest.fixture
def diagnosed(records):
    """Ranks of erm are 1 and 2 on a > b, 3 and 4 on b > a; simclr has none with one seed."""
    told = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, None]
    return [
        r.model_copy(update={"diagnostics": Diagnostics(effective_rank=rank, domain_accuracy=0.5)})
        for r, rank in zip(records, told, strict=True)
    ]


def test_columns_of_diagnostics_are_means_over_shifts_and_spread_over_seeds(diagnosed):
    columns = ("effective_rank", "domain_accuracy")
    simclr, erm = rows(diagnosed, WANTED, columns)
    assert erm.diagnostics == {"effective_rank": (2.0, 3.0), "domain_accuracy": (0.5, 0.5)}
    assert simclr.diagnostics["effective_rank"] == (), "what one cell lacks is not averaged away"
    shown = render(diagnosed, WANTED, "markdown", columns)
    lines = {line.split("|")[1].strip(): line for line in shown.splitlines() if "|" in line}
    assert [cell.strip() for cell in lines["erm"].split("|")[-3:-1]] == ["2.5 ± 0.71", "0.5 ± 0"]
    assert [cell.strip() for cell in lines["simclr"].split("|")[-3:-1]] == ["–", "0.5 ± 0"]
    assert "* *effective_rank*: RankMe" in shown and "*class_cosine*" not in shown
    (line, _) = sorted(
        csv.DictReader(io.StringIO(render(diagnosed, WANTED, "csv", columns))),
        key=lambda line: line["method"],
    )
    assert float(line["effective_rank"]) == 2.5
    assert float(line["effective_rank sd"]) == pytest.approx(stdev((2, 3)))
    raw = json.loads(render(diagnosed, WANTED, "json", columns))
    assert raw[1]["diagnostics"]["effective_rank"] == [2, 3]
    assert r"effective\_rank" in render(diagnosed, WANTED, "latex", columns)


def test_a_board_without_columns_is_the_same_with_diagnostics_and_without(records, diagnosed):
    for form in ("markdown", "csv", "latex", "json"):
        shown = render(records, WANTED, form)
        assert shown == render(diagnosed, WANTED, form)
        assert "effective" not in shown and "diagnostics" not in shown


def test_columns_of_older_records_are_empty(records, template):
    old = [r.model_copy(update={"diagnostics": None}) for r in records]
    assert rows(old, WANTED, ("mmd_squared",))[0].diagnostics == {"mmd_squared": ()}
    assert template.diagnostics is not None


def test_columns_are_named_one_by_one_or_as_a_handful():
    assert diagnostics_named("") == ()
    assert diagnostics_named(" mmd_squared, alignment,mmd_squared") == ("mmd_squared", "alignment")
    handful = diagnostics_named("alignment,diagnostics")
    assert handful[0] == "alignment" and set(handful) < set(ALL_DIAGNOSTICS) and len(handful) == 5
    with pytest.raises(BadInput, match="no column is named 'domain_acuracy'; did you mean 'domain"):
        diagnostics_named("domain_acuracy")


def test_the_table_of_features_has_a_line_for_each_method_and_shift(diagnosed):
    lines = json.loads(features_table(diagnosed, "json"))
    assert [(line["method"], line["shift"]) for line in lines] == [
        ("erm", "a > b"), ("erm", "b > a"), ("simclr", "a > b"), ("simclr", "b > a"),
    ]  # fmt: skip
    assert lines[0]["target"] == pytest.approx([50, 60]) and lines[0]["seeds"] == [0, 1]
    assert lines[0]["diagnostics"]["effective_rank"] == [1, 2]
    assert lines[3]["diagnostics"]["effective_rank"] == [7]
    assert lines[0]["diagnostics"]["mmd_squared"] == []
    (first, *_) = csv.DictReader(io.StringIO(features_table(diagnosed, "csv")))
    assert (first["effective_rank"], first["seeds"], first["mmd_squared"]) == ("1.5", "2", "")
    text = features_table(diagnosed)
    assert all(f"* *{name}*: " in text for name in ALL_DIAGNOSTICS)
    assert "accuracy in percent on the target's test rows" in text and "1.5 ± 0.71" in text
