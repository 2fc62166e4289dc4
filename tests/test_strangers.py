"""Packages of strangers, one of each kind, beside the wheel in an environment of their own."""

import json
import subprocess
from pathlib import Path

import pytest

STRANGERS = Path(__file__).parent / "strangers"
OFFERS = {
    "same_domain": "objective same_domain_simclr",
    "thumbnail": "encoder thumbnail",
    "amplitude_mix": "augmentation amplitude_mix",
    "stripes": "dataset stripes",
}
SUITE = """
name     = "strangers"
dataset  = "stripes(rows=60)"
shifts   = ["fine > coarse"]
seeds    = [0]
encoder  = "thumbnail(width=32)"
baseline = "erm"
stage    = { steps = 12, batch_size = 24, lr = 0.01, augmentation = "noise | amplitude_mix" }
[[method]]
chain = "simclr"
[[method]]
chain = "same_domain_simclr(temperature=0.1) > finetune"
readout = "head"
[[method]]
chain = "same_domain_simclr(temperature=0.1)"
encoder = "small_cnn(width=4)"
[[method]]
chain = "erm"
sees = "source"
readout = "head"
"""


@pytest.mark.slow
def test_strangers_are_listed_checked_and_run_next_to_first_party_plugins(wheel, fresh, tmp_path):
    binaries = fresh(wheel, *(STRANGERS / name for name in OFFERS))

    def call(*words: str) -> str:
        done = subprocess.run(
            [binaries / "benchbench", *words], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    told = json.loads(call("list", "--json"))
    assert told["set_aside"] == []
    plugins = {plugin["name"]: plugin for plugin in told["plugins"]}
    for name, offer in OFFERS.items():
        dashed = name.replace("_", "-")
        assert plugins[name]["distribution"] == f"shift-{dashed}"
        assert plugins[name]["version"] == "0.3" and plugins[name]["offers"] == [offer]
        assert plugins[name]["entry_point"] == f"shift_{name}"

    outcomes = json.loads(call("check", "--json", *OFFERS))
    assert {f"{o['kind']} {o['entry']}" for o in outcomes} == set(OFFERS.values())
    odd = [o for o in outcomes if o["status"] not in ("passed", "skipped")]
    assert {o["check"]: (o["status"], o["message"]) for o in odd} == {
        "per_sample": ("expected", "equal images have nothing to lend each other"),
        "rows_apart": ("expected", "it mixes the rows of a batch"),
    }

    (tmp_path / "suite.toml").write_text(SUITE)
    board = call("run", "suite.toml")
    assert board.count("\n| ") == 4 and "failed" not in board
    (path, *_) = sorted((tmp_path / ".benchbench" / "records" / "strangers").glob("same*.json"))
    used = {p["name"]: p["used"] for p in json.loads(path.read_text())["plugins"] if p["used"]}
    assert used == {
        "augmentations": ["augmentation noise"],
        "encoders": ["encoder small_cnn"],
        **{name: [OFFERS[name]] for name in ("amplitude_mix", "same_domain", "stripes")},
    }


def test_strangers_import_nothing_but_public_names():
    paths = sorted(STRANGERS.rglob("*.py"))
    assert len(paths) >= 4
    for path in paths:
        lines = [line for line in path.read_text().splitlines() if "benchbench" in line]
        imports = [line for line in lines if line.startswith(("import ", "from "))]
        assert imports and all(line.startswith("from benchbench import ") for line in imports)
