"""From texts to tokens."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from benchbench.extension.constants import PADDING
from benchbench.extension.errors import BadInput

if TYPE_CHECKING:
    from tokenizers import Tokenizer

UNKNOWN_WORD, MASK = "[UNK]", "[MASK]"
MOST = 10_000_000  # tokens of a text, and words of a vocabulary
AT_ONCE = 10_000  # texts that are held as lists of tokens


def tokenized(
    texts: Sequence[str],
    *,
    length: int,
    tokenizer: Path | None = None,
    learned_from: Iterable[str] = (),
    words: int = 20_000,
) -> tuple[Tensor, tuple[str, ...]]:
    """The first ``length`` tokens of every text, int32 [N, L] ending in PADDING; the vocabulary.

    L is ``length``, or less if no text is so long. ``tokenizer`` is a file `tokenizer.json` of
    Hugging Face's. Without one, tokens are words and punctuation in lower case, the ``words`` most
    frequent of the texts in ``learned_from``, [UNK] for others, and [MASK]. BadInput if there is
    no such file, nothing to learn from, or ``length`` or ``words`` is below 1 or above 10 million.
    """
    for name, value in (("length", length), ("words", words)):
        if not 1 <= value <= MOST:
            raise BadInput(f"{name} = {value} must lie between 1 and {MOST:,}")
    model = of_words(learned_from, words) if tokenizer is None else read_tokenizer(tokenizer)
    model.enable_truncation(length)
    model.no_padding()
    blocks = [np.empty((0, 1), np.int32)]
    for start in range(0, len(texts), AT_ONCE):
        found = [e.ids for e in model.encode_batch_fast(texts[start : start + AT_ONCE])]
        block = np.full((len(found), max(map(len, found))), PADDING, np.int32)
        for row, ids in enumerate(found):
            block[row, : len(ids)] = ids
        blocks.append(block)
    tokens = np.full((len(texts), max(block.shape[1] for block in blocks)), PADDING, np.int32)
    for number, block in enumerate(blocks[1:]):
        tokens[number * AT_ONCE :][: len(block), : block.shape[1]] = block
    numbered = {number: word for word, number in model.get_vocab().items()}
    vocabulary = tuple(numbered.get(number, "") for number in range(max(numbered) + 1))
    return torch.from_numpy(tokens), vocabulary


def of_words(texts: Iterable[str], count: int) -> "Tokenizer":
    """A tokenizer that knows the most frequent words; of equally frequent ones the first in order.

    Texts are split as BERT splits them (Devlin et al. 2019), before it goes below words.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    model = Tokenizer(models.WordLevel(unk_token=UNKNOWN_WORD))
    model.normalizer = normalizers.BertNormalizer(lowercase=True)
    model.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [UNKNOWN_WORD, MASK]
    trainer = trainers.WordLevelTrainer(
        vocab_size=count + len(special), special_tokens=special, show_progress=False
    )
    model.train_from_iterator(texts, trainer)
    if model.get_vocab_size() <= len(special):
        raise BadInput("there is no word to learn a vocabulary from")
    return model


def read_tokenizer(path: Path) -> "Tokenizer":
    from tokenizers import Tokenizer

    if not path.is_file():
        raise BadInput(f"there is no tokenizer {path}; give a tokenizer.json of Hugging Face's")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise BadInput(f"{path} is no tokenizer: {error}") from None
