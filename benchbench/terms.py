"""Terms that need no tensors: reading a suite or a board does not load torch."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, get_args

UNKNOWN = -1  # the label of a row whose class the method may not see, or nobody knows
PADDING = -1  # the token that fills a text up to the length of the longest
TRAIN, VAL, TEST = 0, 1, 2  # the values of `split`
CROPS = "random_resized_crop(scale=(0.3, 1.0))"
COLOURS = "color_jitter | greyscale | gaussian_blur"  # with CROPS, as in suites that are shipped

# What people write in the place of a class, in any case; the first say that nobody knows it.
UNLABELLED = ("", "nan", "unlabeled", "unlabelled")
NO_CLASS = ("?", "-", "-1", "n/a", "na", "no label", "nolabel", "none", "null", "unknown")

Precision = Literal["bf16", "fp32"]
Optimizer = Literal["adamw", "sgd", "lars"]
Rule = Literal[  # of selection, by which the draws and snapshots of a method are chosen among
    "last",  # nothing is chosen: what the suite says, at its end
    "source_val",
    "leave_one_out",
    "dev",
    "entropy",
    "infomax",
    "snd",
    "bnm",
    "class_ami",
    "rankme",
    "oracle",  # reads target labels, and is never ranked
]
HONEST = tuple(rule for rule in get_args(Rule) if rule != "oracle")  # that read no target label


class BadInput(Exception):
    """What the user gave cannot be used.

    The message is one sentence that says what is wrong, where, and what there is instead. The
    command line prints it, without a traceback, and exits with status 2.
    """


class MissingData(BadInput):
    """A dataset's files are not there; the message says where they come from."""

    def __init__(self, message: str, files: Sequence[str]) -> None:
        super().__init__(message)
        self.files = tuple(files)  # all that are missing, below the data folder


@dataclass(frozen=True)
class Budget:
    """What a stage may spend."""

    steps: int
    batch_size: int  # rows drawn per step, as many from every domain the stage sees
    lr: float
    weight_decay: float
    warmup: float  # the share of the steps over which the learning rate rises
    optimizer: Optimizer = "adamw"
    parts: int = 1  # in which a batch passes through the encoder, to need less memory

    @property
    def images_seen(self) -> int:
        return self.steps * self.batch_size

    @property
    def key(self) -> dict[str, object]:
        """For keys: what has a default is left out where it has it, as before there was any.

        LARS without decay has a mark, since under the key without it lies what SGD trained.
        """
        told = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }
        if self.optimizer == "lars" and not self.weight_decay:
            told["adapts"] = True
        return told


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A seed for one purpose, such as ``("views", step)``, that no other purpose shares."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1
