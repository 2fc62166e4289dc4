"""Augmentations of texts: words that go, words that stand for each other, a part for the whole."""

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor

from benchbench import PADDING, BadInput, Task, for_text, reads_file

View = Callable[[Tensor], Tensor]


@for_text
def token_dropout(task: Task, *, p: float = 0.1) -> View:
    """Each token goes with probability p, and the rest moves up; one always stays.

    Random deletion (Wei and Zou 2019, arXiv:1901.11196).
    """
    check_share("token_dropout", p)

    def drop(tokens: Tensor) -> Tensor:
        luck = torch.rand(tokens.shape, device=tokens.device)
        luck = luck.masked_fill(tokens == PADDING, -1.0)
        stays = (luck >= p) | ((luck == luck.amax(1, keepdim=True)) & (luck >= 0))
        return moved_up(tokens, stays)

    return drop


@for_text
def span(task: Task, *, share: tuple[float, float] = (0.5, 1.0)) -> View:
    """A part of the text in one piece, of a share of its tokens drawn from ``share``.

    Independent cropping (Izacard et al. 2022, arXiv:2112.09118, section 3.1).
    """
    low, high = share
    if not 0 < low <= high <= 1:
        raise BadInput(f"span: share = {share} should be within (0, 1], the lower first")

    def crop(tokens: Tensor) -> Tensor:
        luck = torch.rand(len(tokens), 2, device=tokens.device)
        length = (tokens != PADDING).sum(1, keepdim=True)
        size = (length * (low + (high - low) * luck[:, :1])).ceil().clamp(min=1)
        start = (luck[:, 1:] * (length - size + 1)).floor()
        place = torch.arange(tokens.shape[1], device=tokens.device)
        return moved_up(tokens, (place >= start) & (place < start + size) & (tokens != PADDING))

    return crop


@for_text
@reads_file("file")
def synonyms(task: Task, *, p: float = 0.2, file: str = "", sha256: str = "") -> View:
    """Each word that has synonyms becomes one of them with probability p.

    Synonym replacement (Wei and Zou 2019, arXiv:1901.11196). Words of one line of ``file`` stand
    for each other; without one, some hundred lines of common English words. Only words of the
    dataset's vocabulary count. The record holds the file's ``sha256``.
    """
    check_share("synonyms", p)
    numbers = {word: number for number, word in enumerate(task.vocabulary)}
    others: dict[int, set[int]] = {}
    for line in lines_of(file):
        known = {numbers[word] for word in line.lower().split() if word in numbers}
        for number in known:
            others.setdefault(number, set()).update(known - {number})
    others = {number: words for number, words in others.items() if words}
    if not others:
        raise BadInput("synonyms: the dataset's vocabulary has no two words of one line")
    table = torch.zeros(len(task.vocabulary), max(map(len, others.values())), dtype=torch.int64)
    counts = torch.zeros(len(task.vocabulary), dtype=torch.int64)
    for number, words in others.items():
        table[number, : len(words)] = torch.tensor(sorted(words))
        counts[number] = len(words)

    @cache
    def tables(device: torch.device) -> tuple[Tensor, Tensor]:
        """Copied once: a copy makes the host wait for the device."""
        return counts.to(device), table.to(device)

    def replace(tokens: Tensor) -> Tensor:
        luck = torch.rand(*tokens.shape, 2, device=tokens.device)
        words = tokens.clamp(min=0)
        counted, listed = tables(tokens.device)
        many = counted[words].masked_fill(tokens == PADDING, 0)
        other = listed[words, (luck[..., 1] * many).long()]
        return torch.where((luck[..., 0] < p) & (many > 0), other, tokens)

    return replace


def moved_up(tokens: Tensor, stays: Tensor) -> Tensor:
    """The tokens that stay, in their order, then PADDING."""
    order = (~stays).to(torch.int8).argsort(dim=1, stable=True)
    place = torch.arange(tokens.shape[1], device=tokens.device)
    return tokens.gather(1, order).masked_fill(place >= stays.sum(1, keepdim=True), PADDING)


def lines_of(file: str) -> list[str]:
    if not file:
        return (files(__package__) / "synonyms.txt").read_text(encoding="utf-8").splitlines()
    try:
        return Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"synonyms: {file} cannot be read: {error}") from None


def check_share(owner: str, p: float) -> None:
    if not 0 < p < 1:
        raise BadInput(f"{owner}: p = {p} should be within (0, 1)")
