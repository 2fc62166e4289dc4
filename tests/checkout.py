"""Imported first: what is tested is this checkout, also by the processes that tests start."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
OURS = [str(ROOT), str(ROOT / "plugins"), str(ROOT / "tests" / "helpers")]
INHERITED = os.environ.get("PYTHONPATH", "").split(os.pathsep)

sys.path[:0] = OURS
os.environ["PYTHONPATH"] = os.pathsep.join([*OURS, *filter(None, INHERITED)])
