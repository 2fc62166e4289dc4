"""Pre-training that compares no two images: what an image should tell about itself."""

from collections.abc import Callable

from benchbench import Objective, hookimpl
from benchbench_pretext.masked import MAE
from benchbench_pretext.rotation import RotNet


@hookimpl
def benchbench_objectives() -> dict[str, Callable[..., Objective]]:
    return {"mae": MAE, "rotnet": RotNet}
