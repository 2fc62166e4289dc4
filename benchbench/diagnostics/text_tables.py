"""Figures as a table of Markdown, each column in a format of its own."""

from collections.abc import Iterable, Sequence
from typing import Any

from tabulate import tabulate


def table(rows: Iterable[Sequence[Any]], headers: Sequence[str], formats: Sequence[str]) -> str:
    """``formats`` are those of `format`, one for each column; "" is a text, and stands left."""
    cells = [[format(cell, form) for cell, form in zip(row, formats, strict=True)] for row in rows]
    aligned = ["left" if not form else "right" for form in formats]
    return tabulate(cells, headers, "github", colalign=aligned, disable_numparse=True)
