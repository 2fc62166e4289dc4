"""Processes that train stages together: they live as long as a run, and end in its ways."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import Text

from benchbench.execution.job import Job, rank_plan, train_together_for
from benchbench.execution.process_ranks import RankDied, Ranks
from benchbench.execution.torchrun import Torchrun
from benchbench.extension.catalog import Wanted
from benchbench.extension.errors import BadInput
from benchbench.store.records import read_records
from benchbench.suites.suite import Suite
from benchbench.training.loop import Diverged

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}

PLUGIN = """
import os
import signal
from pathlib import Path
import torch
import torch.distributed as dist
from benchbench import BadInput, Objective, hookimpl


class Told(Objective):
    n_views = 1

    def __init__(self, encoder, task, *, folder="", how="well"):
        super().__init__()
        self.folder, self.how = folder, how
        self.head = torch.nn.Linear(encoder.num_features, 1)

    def forward(self, encoder, batch):
        second = dist.is_initialized() and dist.get_rank() == 1
        (Path(self.folder) / f"{self.how}-{os.getpid()}").touch()
        loss = self.head(encoder(batch.views[0])).square().mean()
        if self.how == "nan":
            return loss * torch.nan
        if self.how == "killed" and second:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "error" and second:
            raise ValueError("bad luck")
        if self.how == "bad" and second:
            raise BadInput("what is asked for is not there")
        if self.how == "exit" and second:
            raise SystemExit(3)
        return loss


@hookimpl
def benchbench_objectives():
    return {"told": Told}
"""

SUITE = Text("""
name = "few"
dataset = "digits"
shifts = ["scans > photos"]
seeds = [0]
encoder = "small_cnn(width=4)"
precision = "fp32"
readout = "knn"
stage = { steps = 3, batch_size = 8, lr = 0.004 }
""")
HOW = ("well", "again", "killed", "error", "bad", "exit", "nan", "later", "last")


def methods(folder, names):
    return "".join(
        f"[[method]]\nname = {how!r}\nchain = \"told(folder='{folder}', how='{how}')\"\n"
        for how in names
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A job whose methods end in the ways of HOW, by name, and its plan."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "told.py").write_text(PLUGIN)
    (folder / "few.toml").write_text(SUITE + methods(folder, HOW))
    wanted = Wanted.here([str(folder / "told.py")])
    suite = Suite.read(str(folder / "few.toml"))
    job = Job(suite, wanted, folder, folder / "store", "cpu", ranks=2, threads=2)
    plan = job.plan(lambda done, total: None)
    return folder, job, plan, {cell.method.name: cell for cell in plan.cells}


def who(folder: Path, how: str) -> set[int]:
    return {int(path.name.rpartition("-")[2]) for path in folder.glob(f"{how}-*")}


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not Path(f"/proc/{pid}").exists()


def train(ranks, made, how):
    _, _, plan, cells = made
    ranks(cells[how], plan.links(cells[how]), plan)
    assert all(map(plan.trained, plan.links(cells[how])))


def test_they_live_as_long_as_the_run_and_are_started_again_where_one_died(made):
    folder, job, *_ = made
    with train_together_for(job) as ranks:
        assert isinstance(ranks, Ranks) and ranks.ranks == [], "before there is something to train"
        train(ranks, made, "well")
        train(ranks, made, "again")
        first = who(folder, "well")
        assert len(first) == 2 and who(folder, "again") == first and os.getpid() not in first
        train(ranks, made, "well")  # which is trained
        words = "process 2 of the 2 that trained killed · scans > photos.* was killed by SIGKILL"
        with pytest.raises(RankDied, match=words):
            train(ranks, made, "killed")
        assert who(folder, "killed") == first and all(map(gone, first))
        train(ranks, made, "later")
        later = who(folder, "later")
        assert len(later) == 2 and not later & first
        ranks.ranks[1].process.kill()  # at rest
        ranks.ranks[1].process.join()
        train(ranks, made, "last")
        last = who(folder, "last")
        assert len(last) == 2 and not last & later
    assert all(map(gone, later | last))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("error", RuntimeError, "ValueError: bad luck"),
        ("bad", BadInput, "what is asked for is not there"),
        ("exit", RuntimeError, "SystemExit: 3"),
        ("nan", Diverged, "the loss became nan at step 1"),
    ],
)
def test_what_goes_wrong_in_one_of_them_is_raised_and_all_end(made, how, kind, words):
    folder, job, *_ = made
    with train_together_for(job) as ranks:
        with pytest.raises(kind, match=words):
            train(ranks, made, how)
        assert ranks.ranks == [] and all(map(gone, who(folder, how)))


@pytest.mark.slow
def test_an_interrupt_ends_them_with_a_checkpoint(made):
    folder, job, plan, _ = made
    text = SUITE.replace("steps = 3", "steps = 100000").replace('name = "few"', 'name = "long"')
    (folder / "long.toml").write_text(text + methods(folder, ["well"]))
    long = Job(Suite.read(str(folder / "long.toml")), job.wanted, folder, job.store, "cpu",
               ranks=2, threads=2, checkpoint_every=0.01)  # fmt: skip
    plan = long.plan(lambda done, total: None)
    (cell,) = plan.cells
    before = who(folder, "well")
    checkpoint = plan.store.root / "checkpoints"

    def interrupted(number, frame):
        raise KeyboardInterrupt

    def look(number, frame):
        if any(path.stem == plan.links(cell)[0].key for path in checkpoint.glob("*.safetensors")):
            raise KeyboardInterrupt
        signal.setitimer(signal.ITIMER_REAL, 0.2)

    usual = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt), Ranks(rank_plan, long, 2) as ranks:
            ranks(cell, plan.links(cell), plan)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, usual)
    assert all(map(gone, who(folder, "well") - before))
    assert plan.store.has("checkpoints", plan.links(cell)[0].key)
    assert not plan.trained(plan.links(cell)[0])


@pytest.mark.slow
def test_processes_of_torchrun_train_a_suite_together(made):
    """The first runs the cells and writes; the other trains with it, after a divergence, too."""
    folder, job, *_ = made
    text = SUITE.replace('name = "few"', 'name = "spread"')
    names = ("well", "nan", "later")
    (folder / "spread.toml").write_text(text + methods(folder, names))
    line = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port"]
    line += [str(free_port()), "-m", "benchbench", "run", "spread.toml", "--store", "spread"]
    line += ["--plugin", "told.py", "--device", "cpu", "--data", "."]
    before = {how: who(folder, how) for how in HOW}
    done = subprocess.run(line, env=ONE_THREAD, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 1, done.stderr  # one has diverged
    assert done.stdout.count("| method ") == 1, "the board, once"
    found = {r.method: r for r in read_records(folder / "spread" / "records" / "spread")}
    assert {name: r.status for name, r in found.items()} == {
        "well": "scored",
        "nan": "diverged",
        "later": "scored",
    }
    assert {s.processes for r in found.values() if r.cost for s in r.cost.stages} == {2}
    mine = [who(folder, how) - before[how] for how in names]
    assert mine[0] == mine[1] == mine[2] and len(mine[0]) == 2


ENVIRONMENT = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "MASTER_ADDR": "a",
               "MASTER_PORT": "1"}  # fmt: skip


def test_what_torchrun_says_is_taken(monkeypatch):
    told = Torchrun.found(ENVIRONMENT)
    assert (told.rank, told.count, told.local, told.follows) == (3, 4, 1, True)
    assert not Torchrun.found({**ENVIRONMENT, "RANK": "0"}).follows
    assert told.ranks(1, "local") == told.ranks(4, "local") == 4
    for left_out in ENVIRONMENT:
        assert Torchrun.found({k: v for k, v in ENVIRONMENT.items() if k != left_out}) is None
    assert Torchrun.found({**ENVIRONMENT, "WORLD_SIZE": "1"}) is None
    with pytest.raises(BadInput, match="RANK = 'x' in the environment should be a number"):
        Torchrun.found({**ENVIRONMENT, "RANK": "x"})
    with pytest.raises(BadInput, match="--ranks 8: torchrun has started 4 processes"):
        told.ranks(8, "local")
    with pytest.raises(BadInput, match="leave out --launch slurm"):
        told.ranks(1, "slurm")


def test_each_process_of_torchrun_has_a_gpu_of_its_own(monkeypatch):
    there, taken = 2, []
    monkeypatch.setattr("torch.cuda.is_available", lambda: there > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: there)
    monkeypatch.setattr("torch.cuda.set_device", taken.append)
    told = Torchrun.found(ENVIRONMENT)
    assert told.device("auto") == told.device("cuda") == "cuda:1" and taken == [1, 1]
    assert told.device("cpu") == "cpu"
    there = 1
    with pytest.raises(BadInput, match="more than 1 processes on this machine, which has 1 GPU;"):
        told.device("auto")
    there = 0
    assert told.device("auto") == "auto"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
