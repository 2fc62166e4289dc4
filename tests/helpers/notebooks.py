"""Runs the notebooks of docs/notebooks; as a program, it writes their outputs into them again."""

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))


def executed(path: Path, folder: Path) -> Any:
    """The notebook with the outputs of today; ``folder`` is where it runs, and its store is."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(folder)}}
    client = NotebookClient(
        notebook, timeout=300, resources=where, record_timing=False, coalesce_streams=True
    )
    client.execute()
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    return notebook


def tables(notebook: Any) -> list[list[str]]:
    """Of each table that its cells show the names of columns and of rows, in no order."""
    found = []
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            html, markdown = (
                "".join(output.get("data", {}).get(f"text/{kind}", ""))
                for kind in ("html", "markdown")
            )
            if names := re.findall(r"<th[^>]*>(.*?)</th>|<tr>\s*<td>(.*?)</td>", html):
                found.append(sorted((head or first).strip() for head, first in names))
            elif rows := re.findall(r"^\| *(.*?) *\|", markdown, re.MULTILINE):
                found.append(sorted(rows))
    return found


def main() -> None:
    import nbformat

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for path in PATHS:
        folder = Path(tempfile.mkdtemp())
        try:
            nbformat.write(executed(path, folder), path)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
