"""Tokens of words, beside plain Python."""

import re
from collections import Counter

import pytest
import torch

from benchbench import BadInput, tokenized

LINES = ["The cat, the DOG.", "A cat!", "", "the the Übung — cat", "dog " * 30]


def split(line):
    words = re.findall(r"\w+|[^\w\s]", line.lower())
    return [word.replace("ü", "u") for word in words]  # as BERT strips accents


def test_words_are_numbered_by_how_often_they_occur_and_then_in_order():
    tokens, vocabulary = tokenized(LINES, length=8, learned_from=LINES[:4], words=4)
    counted = Counter(word for line in LINES[:4] for word in split(line))
    ordered = sorted(counted, key=lambda word: (-counted[word], word))[:4]
    assert vocabulary == ("[UNK]", "[MASK]", *ordered)
    assert tokens.dtype == torch.int32 and tokens.shape == (5, 8)
    for row, line in zip(tokens.tolist(), LINES, strict=True):
        wanted = [vocabulary.index(w) if w in ordered else 0 for w in split(line)[:8]]
        assert row == wanted + [-1] * (8 - len(wanted))
    again, other = tokenized(LINES, length=8, learned_from=LINES[:4], words=4)
    assert torch.equal(tokens, again) and vocabulary == other


def test_the_longest_text_decides_where_none_is_cut():
    tokens, _ = tokenized(LINES[:4], length=100, learned_from=LINES)
    assert tokens.shape == (4, 6)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"learned_from": ["", " "]}, "there is no word to learn a vocabulary from"),
        ({"length": 0}, "length = 0 must lie between 1 and 10,000,000"),
        ({"length": 2**70}, "length = 1180591620717411303424 must lie between"),
        ({"words": -3}, "words = -3 must lie between"),
        ({"words": 2**70}, "words = 1180591620717411303424 must lie between"),
        ({"tokenizer": "none.json"}, "there is no tokenizer .*none.json"),
        ({"tokenizer": "bad.json"}, "bad.json is no tokenizer"),
    ],
)
def test_what_cannot_tokenise_is_one_sentence(tmp_path, options, sentence):
    (tmp_path / "bad.json").write_text("{}")
    if "tokenizer" in options:
        options = {"tokenizer": tmp_path / options["tokenizer"]}
    with pytest.raises(BadInput, match=sentence):
        tokenized(LINES, **{"length": 4, "learned_from": LINES, **options})
