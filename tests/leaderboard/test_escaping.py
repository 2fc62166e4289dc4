"""What strangers say, through every renderer of text: shown, and nothing more."""

import csv
import io
import re
import unicodedata
from collections import Counter

import pytest
from crowd import ATTACKS, Words, boards_of, crowded, kinds, two_stages
from markdown_it import MarkdownIt

from benchbench.leaderboard import escaping
from benchbench.leaderboard.comparison import compared
from benchbench.leaderboard.table import board
from benchbench.leaderboard.table_formats import as_csv, as_json, latex, markdown
from benchbench.store.records import Record

FORMULAS = ("=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(1,1)", "\t=1", "\r=1")
EVERY = (*ATTACKS, *FORMULAS)
HARMLESS = "x"
every_attack = boards_of(EVERY)


@pytest.fixture(scope="module")
def template() -> Record:
    return two_stages()


@pytest.fixture(scope="module")
def plain(template):
    return board(crowded(template, Words(HARMLESS)))


def hidden(text):
    return [c for c in text if unicodedata.category(c) in escaping.HIDDEN and c != "\n"]


def shape(text):
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    inline = [child for token in parser.parse(text) for child in (token, *(token.children or ()))]
    return Counter(kind for kind in kinds(inline) if kind != "hardbreak")


@every_attack
def test_markdown_has_the_elements_it_has_for_harmless_names(said, harmless, template, plain):
    text = markdown(board(crowded(template, said)))
    assert not hidden(text)
    assert shape(text) == shape(markdown(plain))


@every_attack
def test_latex_has_the_commands_and_cells_it_has_for_harmless_names(
    said,
    harmless,
    template,
    plain,
):
    text = latex(board(crowded(template, said)))
    assert not hidden(text)
    known = {*re.findall(r"\\[A-Za-z]+", latex(plain))} | {*re.findall(r"\\[A-Za-z]+", written())}
    assert {*re.findall(r"\\[A-Za-z]+", text)} <= known
    assert text.count(r"\\") == latex(plain).count(r"\\")
    bare = re.sub(r"\\.", "", text)
    assert bare.count("&") == re.sub(r"\\.", "", latex(plain)).count("&")
    assert bare.count("{") == bare.count("}")
    assert not set("#%^~") & set(bare) and bare.count("$") % 2 == 0


def written():
    """All that escaping may write."""
    return "".join(escaping.LATEX.values())


@every_attack
def test_csv_has_no_formula_and_as_many_cells(said, harmless, template, plain):
    lines = list(csv.reader(io.StringIO(as_csv(board(crowded(template, said))))))
    same = list(csv.reader(io.StringIO(as_csv(plain))))
    assert [*map(len, lines)] == [*map(len, same)]
    for cell in (cell for line in lines for cell in line):
        assert not hidden(cell)
        assert cell[:1] not in ("=", "@", "+")
        if cell[:1] == "-":
            assert float(cell) <= 0


@every_attack
def test_what_a_terminal_gets_has_no_escapes(said, harmless, template):
    source = crowded(template, said)
    one, other = source.expected.methods[:2]
    assert not hidden(compared(source, one, other, as_json=False))
    made = board(source)
    assert not hidden(as_json(made)), "JSON escapes what is below a blank"


def test_a_cell_that_is_a_formula_is_a_text():
    cells = [escaping.csv_cell(formula) for formula in FORMULAS]
    assert [cell[0] for cell in cells] == ["'"] * len(FORMULAS)


def test_text_that_is_shown_whole_is_left_alone():
    assert escaping.visible("é 漢字 🙂 a_b") == "é 漢字 🙂 a_b"
    assert escaping.csv_cell(-1.5) == -1.5 and escaping.csv_cell("-1.5") == "'-1.5"
    assert escaping.link("https://example.org/a?b=1&c=2") == "<https://example.org/a?b=1&c=2>"
    assert "<" not in escaping.link("javascript:alert(1)")
    assert escaping.code("a`b|c") == "`a'b|c`"
