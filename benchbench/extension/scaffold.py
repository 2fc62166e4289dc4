"""Write the package of a new plugin: one module, its test, its suite, and how to go on."""

import re
import shutil
import tempfile
from importlib.resources import files
from pathlib import Path

from benchbench.extension.errors import BadInput

TEMPLATES = files("benchbench") / "extension" / "templates"


def write_package(kind: str, name: str, parent: Path) -> Path:
    """The new folder below ``parent``; BadInput if the name cannot be one, or is taken there."""
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name):
        raise BadInput(
            f"{name!r} cannot name a plugin; use small letters, digits and hyphens, as in my-idea"
        )
    words = re.split("[-_]", name)
    snake, dashed = "_".join(words), "-".join(words)
    target = parent / dashed
    if target.exists():
        raise BadInput(f"{target} exists; choose another name, or another folder with --into")

    module = f"benchbench_{snake}.py"
    contents = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        module: f"{kind}.py",
        "suite.toml": f"{kind}.toml",
        "tests/test_conformance.py": "test_conformance.py",
    }
    try:
        parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{dashed}-", dir=parent))
        try:
            for place, template in contents.items():
                text = (TEMPLATES / template).read_text(encoding="utf-8")
                text = text.replace("my_idea", snake).replace("my-idea", dashed)
                text = text.replace("MyIdea", "".join(map(str.title, words)))
                path = draft / place
                path.parent.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8")
            draft.chmod(0o755)
            draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise BadInput(f"{parent} cannot be written: {error.strerror}") from error
    return target
