"""The grammar name(key=value)."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchbench.extension.errors import BadInput
from benchbench.extension.grammar import (
    instead,
    parse,
    seconds_of,
    settle,
    spell,
    split_chain,
    split_pipeline,
)

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)
names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: name not in ("and", "as", "if", "in", "is", "or", "not", "for", "def", "del",
                              "try", "else", "elif", "from", "pass", "with", "while", "async",
                              "await", "break", "class", "yield", "lambda", "return", "raise",
                              "global", "import", "assert", "except", "finally", "continue",
                              "nonlocal")
)  # fmt: skip


@given(names, st.dictionaries(names, values, max_size=3))
def test_what_is_spelled_is_parsed_back(name, options):
    assert parse(spell(name, options)) == (name, options)


@given(st.text(max_size=60))
def test_any_other_text_is_refused_with_bad_input_alone(text):
    for read in (parse, split_chain, split_pipeline):
        with contextlib.suppress(BadInput):
            read(text)


@pytest.mark.parametrize(
    "text", ["a.b", "a(1)", "a(**{})", "a + b", "'a'", "a(b=c)", "a(b=f())", "", "(" * 5000, "a\0"]
)
def test_only_names_and_keyword_calls_with_plain_values_parse(text):
    with pytest.raises(BadInput, match="expected name"):
        parse(text)


def test_a_single_word_is_a_tuple_of_one():
    for default in ((), ("a", "b")):
        assert settle("x", {"files": default}, {"files": "c"}) == {"files": ("c",)}
    for default in ((0.5, 1.0), (1,)):
        with pytest.raises(BadInput, match="should be of type tuple"):
            settle("x", {"scale": default}, {"scale": "c"})


def test_chains_and_pipelines_split_at_their_own_sign_only():
    assert split_chain("swav(a='x > y') > lp_ft > fixmatch") == [
        "swav(a='x > y')",
        "lp_ft",
        "fixmatch",
    ]
    assert split_chain("  ") == []
    assert split_pipeline("crop(scale=(0.2, 1)) | flip | blur") == [
        "crop(scale=(0.2, 1))",
        "flip",
        "blur",
    ]


def test_an_option_takes_the_type_of_its_default():
    options = {"rate": 0.1, "scale": (0.2, 1.0), "deep": False, "free": None, "count": 3}
    settled = settle("x", options, {"rate": 2, "scale": [1, 2], "free": "anything"})
    wanted = {**options, "rate": 2.0, "scale": (1.0, 2.0), "free": "anything"}
    assert repr(settled) == repr(wanted)
    for wrong in (
        {"rate": "2"},
        {"scale": ("a",)},
        {"deep": 1},
        {"count": True},
        {"count": 2.5},
        {"scale": 1},
    ):
        with pytest.raises(BadInput, match=f"{next(iter(wrong))} = .* should be of type"):
            settle("x", options, wrong)


def test_a_refusal_names_the_nearest_and_all():
    assert instead("simcl", ["simclr", "erm"]) == "did you mean 'simclr'? there is erm, simclr"
    assert instead("zzz", []) == "there is none"


@pytest.mark.parametrize(
    "value", [10**400, -(10**400), 2**63, 1e999, -1e999, 1e999 - 1e999, (1.0, 1e999), [[10**400]]]
)
@pytest.mark.parametrize("default", [0.5, 3, (0.0, 1.0), None])
def test_a_number_that_no_library_takes_is_refused_by_its_name(value, default):
    with pytest.raises(BadInput, match="objective x: width has to be finite, and of at most 64"):
        settle("objective x", {"width": default}, {"width": value})


@pytest.mark.parametrize("text", ["1e400h", "9" * 400 + "h", "36526d", "0s", "-1s", "inf", "nan s"])
def test_a_time_that_never_ends_is_none(text):
    assert seconds_of(text) is None
