"""Texts of suites that several files of tests read, run or change."""

from tiny import SUITE, Text

METHODS = Text("""
name = "tiny"
dataset = "tiny"
shifts = ["left > right", "right > left", "left > odd"]
seeds = [0]
encoder = "small_cnn(width=4)"
precision = "fp32"
stage = { steps = 6, batch_size = 12, lr = 0.01, augmentation = "noise" }
[[method]]
chain = ""
[[method]]
chain = "simclr"
[[method]]
chain = ["simclr", { objective = "finetune", sees = "source" }]
readout = "head"
[[method]]
chain = "erm"
sees = "source"
readout = "head"
[[method]]
chain = "dann"
readout = "head"
[[method]]
name = "ceiling"
chain = "erm"
sees = "target"
labels = "target"
readout = "head"
""")

SMALL = Text("""
name = "small"
dataset = "digits"
shifts = ["scans > photos"]
seeds = [0]
encoder = "small_cnn(width=4)"
precision = "fp32"
baseline = "erm"
stage = { steps = 3, batch_size = 16, lr = 0.01 }
[[method]]
chain = "simclr"
augmentation = "random_resized_crop | color_jitter"
[[method]]
chain = "erm"
sees = "source"
readout = "head"
""")

FULL = Text("""
name = "full"
dataset = "tiny"
shifts = "all"
seeds = [0, 1]
encoder = "small_cnn"
baseline = "erm"
[stage]
steps = 10
batch_size = 32
lr = 1
[[method]]
chain = ""
[[method]]
chain = "simclr(temperature=0.1)"
readout = ["linear", "knn(k=(3,))"]
[[method]]
chain = ["simclr", { objective = "finetune", steps = 5, lr = 0.1 }]
augmentation = "noise"
[[method]]
chain = "erm"
sees = "source"
readout = "head"
""")

TUNED = SUITE.replace('["left > right"]', '["left > right", "left + odd > right"]').replace(
    'precision = "fp32"',
    'precision = "fp32"\nsnapshots = 2\nleave_one_out = true\ntune = { draws = 2 }',
)
TUNED += """
[[method]]
chain = "erm"
readout = "head"
sees = "source"
[[method]]
chain = ""
"""
