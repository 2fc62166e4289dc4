"""Values and words of the protocol, without torch: reading a suite or a board does not load it."""

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
