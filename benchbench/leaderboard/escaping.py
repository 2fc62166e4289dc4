"""Text of strangers, such as a method's name, made harmless for what shows it."""

import re
import unicodedata
from html import escape

HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # categories of what is not seen as itself
LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "^": r"\^{}", "~": r"\~{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "±": r"$\pm$", "–": "--", "−": "$-$", "×": r"$\times$", "√": r"$\surd$",
    "α": r"$\alpha$", "≥": r"$\geq$", "…": r"\ldots{}", "\n": " ",
}  # fmt: skip


def visible(text: str) -> str:
    """Control characters, terminal escapes and what reorders text are shown as U+FFFD."""
    if text.isprintable():
        return text
    return "".join("�" if unicodedata.category(c) in HIDDEN else c for c in text)


def markdown(text: str) -> str:
    """For a cell of a table: no markup, no HTML, no link."""
    marks = r"([\\`*{}\[\]#!|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))"
    marked = re.sub(marks, r"\\\1", visible(text))
    return marked.replace("&", "&amp;").replace("<", "&lt;").replace("://", ":&#47;/")


def html(text: str) -> str:
    """For an element or an attribute: no markup."""
    return escape(visible(text))


def linkable(url: str) -> bool:
    """Whether it is an address of the web, and nothing that a page would run."""
    return bool(re.fullmatch(r"https?://[^\s<>\"'`\\|]+", url)) and visible(url) == url


def link(url: str) -> str:
    """For Markdown outside of tables."""
    return f"<{url}>" if linkable(url) else markdown(url)


def code(text: str) -> str:
    """For Markdown's code spans, which end at the first run of as many backticks."""
    return "`" + visible(text).replace("`", "'") + "`"


def latex(text: str) -> str:
    return "".join(LATEX.get(c, c) for c in visible(text))


def csv_cell(value: object) -> object:
    """A text that spreadsheets would run as a formula gets an apostrophe; numbers stay."""
    if not isinstance(value, str):
        return value
    text = visible(value)
    return "'" + text if text[:1] in {"=", "+", "-", "@", "�"} else text
