"""Plugins that attack their judge: a check of such a plugin must not pass.

Each attack is run in a process of its own, as `benchbench check` would run it; that of the same
plugin without the attack passes. An attack says what it replaces, and when.
"""

import os
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from benchbench import Objective
from benchbench.extension.catalog import Entry, Plugin
from benchbench.extension.conformance import CHECKS, Check
from benchbench.extension.conformance.fixtures import Subject
from benchbench.extension.conformance.side_effects import tampered

PLANTED = Plugin("planted", "tests", "0", "planted", "")
MOMENTS = ("import", "factory", "forward", "after_step")
ALWAYS = "lambda *args, **options: 1.0"
CORE = {  # what of the core is replaced, with what
    "evaluation.readouts.interface.accuracy": ALWAYS,
    "evaluation.readouts.interface.goodness": ALWAYS,
    "evaluation.readouts.interface.accuracy.__code__": f"({ALWAYS}).__code__",
    "evaluation.readouts.registry.READOUTS['linear']": ALWAYS,
    "evaluation.metrics.score_of": ALWAYS,
    "evaluation.metrics.METRICS['accuracy']": ALWAYS,
    "extension.conformance.objectives.loss": ALWAYS,
    "extension.conformance.objectives.healthy.__code__": f"({ALWAYS}).__code__",
    "extension.conformance.CHECKS['objective']": f"({ALWAYS},)",
    "extension.conformance.fixtures.close": ALWAYS,
    "extension.conformance.fixtures.Left.same": ALWAYS,
    "extension.conformance.fixtures.short_run": ALWAYS,
    "extension.conformance.objectives.short_run": ALWAYS,
    "extension.conformance.Check._tried": ALWAYS,
    "training.loop.check_finite": ALWAYS,
    "evaluation.features.extract": "wrapped(benchbench.evaluation.features.extract)",
    "store.artifacts.Store.write_record": ALWAYS,
    "store.artifacts.sha256_of": ALWAYS,
    "store.keys.key_of": ALWAYS,
    "data.batches.Feed._order": ALWAYS,
    "data.pack.Pack.task": f"property({ALWAYS})",
}
ATTACKS = {  # of functions: what is replaced, and the name that the check must tell
    **{what: f"benchbench.{what} = {other}" for what, other in CORE.items()},
    "torch.equal": f"torch.equal = {ALWAYS}",
    "torch.equal.": "torch.equal = torch.allclose",
    "torch.allclose": f"torch.allclose = {ALWAYS}",
    "torch.manual_seed": f"torch.manual_seed = {ALWAYS}",
    "torch.Tensor.isfinite": "torch.Tensor.isfinite = lambda self: torch.ones_like(self).bool()",
    "torch.Tensor.item": "torch.Tensor.item = lambda self: 0.0",
    "torch.nn.Module.state_dict": "torch.nn.Module.state_dict = lambda self: {}",
    "torch.nn.functional.cross_entropy": f"torch.nn.functional.cross_entropy = {ALWAYS}",
    "json.dumps": "json.dumps = lambda value, **options: '{}'",
    "hashlib.sha256": "hashlib.sha256 = lambda content=b'': real_sha256(b'')",
    "copy.deepcopy": "copy.deepcopy = lambda value: value",
    "builtins.all": "builtins.all = lambda values: True",
    "numpy.random.seed": f"numpy.random.seed = {ALWAYS}",
}
SETTINGS = {  # of the process: what is changed, and what the check must say
    "torch.set_num_threads(3)": "the number of torch's threads",
    "torch.use_deterministic_algorithms(True)": "torch's deterministic mode",
    "torch.set_default_dtype(torch.float64)": "torch's default dtype",
    "os.chdir('/')": "the working directory",
}
HEAD = """
import builtins, copy, functools, hashlib, json, os
import numpy, torch
import benchbench.data.batches, benchbench.evaluation.metrics, benchbench.execution.cell
import benchbench.evaluation.readouts.registry as registry
import benchbench.extension.conformance.objectives
real_sha256 = hashlib.sha256

def wrapped(function):
    @functools.wraps(function)
    def other(*args, **options):
        return function(*args, **options)
    return other

"""


class Planted(Objective):
    """Views of an image close, images apart; what ``attack`` does, at its moment, once."""

    moment = ""
    attack = staticmethod(lambda: None)

    def __init__(self, encoder, task, *, width=8):
        super().__init__()
        self.projector = nn.Linear(encoder.num_features, width)
        self.at("factory")

    def at(self, moment):
        if moment == self.moment:
            self.attack()

    def forward(self, encoder, batch):
        self.at("forward")
        z, other = (nn.functional.normalize(self.projector(encoder(v))) for v in batch.views)
        target = torch.arange(len(z))
        similar = z.float() @ other.float().T / 0.2
        return nn.functional.nll_loss(similar.log_softmax(1), target)

    def after_step(self, encoder):
        self.at("after_step")


def outcome(attack: str, moment: str, folder: Path, name: str = "loss"):
    """The status and the words of a check, in a process that is then thrown away."""
    read, write = os.pipe()
    (test,) = (test for test in CHECKS["objective"] if test.__name__ == name)
    child = os.fork()
    if child == 0:
        try:
            Planted.moment = moment
            does = compile(HEAD + attack, "planted.py", "exec")
            Planted.attack = staticmethod(lambda: exec(does, {"__name__": "planted"}))  # noqa: S102
            if moment == "import":
                Planted.attack()
            entry = Entry("objective", "planted", Planted, PLANTED)
            found = Check(Subject(entry, folder, folder), test).run()
            os.write(write, f"{found.status}|{found.message}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    status, _, message = said.partition("|")
    return status, message


@pytest.fixture(scope="module", autouse=True)
def warm():
    """What every process below needs, loaded once."""
    exec(HEAD, {})  # noqa: S102
    assert tampered() is None, "nothing is replaced before"
    from benchbench.extension.conformance import warm_up

    warm_up()


@pytest.mark.parametrize("name", ["loss", "seeded"])
def test_the_plugin_without_an_attack_passes(tmp_path, name):
    assert outcome("", "", tmp_path, name) == ("passed", "")


@pytest.mark.parametrize("what", ATTACKS)
def test_who_replaces_a_function_that_judges_is_told_of(what, tmp_path):
    """At each moment in turn, so that all of the table's are tried with all of its functions."""
    moment = MOMENTS[[*ATTACKS].index(what) % 2 * 2]  # import, forward
    status, message = outcome(ATTACKS[what], moment, tmp_path)
    name = re.sub(r"\.__code__$|\[.*\]$|\.$", "", what)
    place = name if name.partition(".")[0] in FOREIGN_NAMES else f"benchbench.{name}"
    assert status == "failed", (status, message)
    assert message.startswith(f"{place} is not what its source says"), message


FOREIGN_NAMES = {"torch", "json", "hashlib", "copy", "builtins", "numpy"}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("what", ["evaluation.readouts.interface.accuracy", "torch.equal"])
def test_it_is_told_of_whenever_it_happens(what, moment, tmp_path):
    status, message = outcome(ATTACKS[what], moment, tmp_path, "seeded")
    assert status == "failed" and f"{what} is not what its source says" in message


@pytest.mark.parametrize("moment", MOMENTS[1:])
@pytest.mark.parametrize("attack", SETTINGS)
def test_who_changes_a_setting_of_the_process_is_told_of(attack, moment, tmp_path):
    status, message = outcome(attack, moment, tmp_path, "seeded")
    assert (status, message) == (
        "failed",
        f"it changes {SETTINGS[attack]}; leave settings to the user",
    )


def test_a_function_that_is_put_back_is_genuine_again(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("benchbench.evaluation.readouts.interface.accuracy", lambda *rows: 1.0)
        assert tampered() == "benchbench.evaluation.readouts.interface.accuracy"
    assert tampered() is None
