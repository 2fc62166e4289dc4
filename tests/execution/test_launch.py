"""Suites in several processes, on Ray and on Slurm's stand-in: the records of one process."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from audiences import Count, lasting, run_all
from suites import METHODS
from tiny import SUITE, Text

from benchbench.execution.job import Ended, Job, Task, device_of, ending
from benchbench.execution.launchers import engine_of
from benchbench.execution.local import Processes
from benchbench.execution.requested_resources import Resources, Rules
from benchbench.execution.task_queue import TRIES, run_tasks, tasks_of
from benchbench.extension.catalog import Wanted
from benchbench.extension.errors import BadInput
from benchbench.store.locks import Claims
from benchbench.store.records import read_records
from benchbench.suites.suite import Suite

DIGITS = Text("""
name = "few"
dataset = "digits"
shifts = ["scans > photos"]
seeds = [0, 1]
encoder = "small_cnn(width=4)"
precision = "fp32"
stage = { steps = 200, batch_size = 32, lr = 0.004, augmentation = "horizontal_flip" }
[[method]]
chain = "simclr"
readout = ["linear", "knn"]
[[method]]
chain = "erm"
sees = "source"
readout = "head"
""")

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


class Script:
    """An engine that runs nothing, and tells of each task what it was told."""

    def __init__(self, ends, slots=1):
        self.ends, self.slots, self.started, self.left = ends, slots, [], False
        self.running = []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.left = True

    @property
    def free(self):
        return self.slots - len(self.running)

    def start(self, tasks):
        self.running += tasks
        self.started += [str(task) for task in tasks]

    def ended(self):
        task = self.running.pop(0)
        status = self.ends(task)
        yield Ended(task.key, status, f"{status} is why", None)


def test_shared_stages_go_first_and_what_needs_them_waits(plan_of):
    plan = plan_of(METHODS)
    tasks = tasks_of(plan, plan.cells)
    stages = [task for task in tasks if task.depth is not None]
    # simclr of left and right: both ways, with and without finetune; erm on left: two and a ceiling
    assert [task.trains for task in stages] == [("simclr",), ("erm",)] * 2  # for 4, 3, 2, 2 cells
    assert tasks[:4] == stages and len(tasks) == 4 + len(plan.cells)
    by_name = {str(task): task for task in tasks}
    tuned = by_name["simclr > finetune · left > right · seed 0"]
    assert tuned.needs == stages[0].key and tuned.trains == ("finetune",)
    assert by_name["random encoder · left > right · seed 0"].needs is None
    run_all(plan)
    assert all(task.needs is None and not task.trains for task in tasks_of(plan, plan.cells))


def test_a_task_whose_process_dies_is_tried_three_times_and_the_others_go_on(plan_of):
    plan = plan_of(METHODS)
    audience = Count()
    engine = Script(lambda task: "scored")
    with pytest.raises(BadInput, match="has no record of it"):
        run_tasks(plan, plan.cells, engine, audience)
    assert engine.left

    assert TRIES == 3
    engine = Script(lambda task: "lost", slots=4)
    records = run_tasks(plan, plan.cells, engine, audience)
    assert [record.status for record in records] == ["failed"] * 18
    assert records[0].reason == f"lost is why, {TRIES} times"
    assert len(engine.started) == TRIES * (4 + 18 - 11), "eleven cells rest on stages that died"
    assert {record.file_name for record in records} == {
        path.name for path in plan.store.records("tiny").glob("*.json")
    }


def test_what_cannot_go_on_stops_the_suite(plan_of):
    plan = plan_of(SUITE)
    engine = Script(lambda task: "stop")
    with pytest.raises(BadInput, match="stop is why"):
        run_tasks(plan, plan.cells, engine, Count())
    assert engine.left


def test_resources_are_said_of_all_tasks_and_of_some(plan_of):
    (cell,) = plan_of(SUITE).cells
    rules = Rules.read(
        ["cpus=4, memory=16GB,time=90min", "simclr*: gpus=0.5, cpus=2", "readout: time=5min"],
        Resources(gpus=1),
    )
    trains = Task(cell, 0, "key", trains=("simclr(temperature=0.1)",))
    assert rules.of(trains) == Resources(2, 0.5, 16 * 10**9, 5400)
    assert rules.of(Task(cell, None, "key")) == Resources(4, 1, 16 * 10**9, 300)
    for text, words in {
        "cpu=2": "did you mean 'cpus'",
        "gpus=1.5": "'1.5' is no amount",
        "cpus=0": "'0' is no amount",
        "memory=5": "'5' is no amount",
        "time=5": "'5' is no amount",
        "": "is not known",
    }.items():
        with pytest.raises(BadInput, match=words):
            Rules.read([text])


def job(tmp_path: Path, text: str = DIGITS) -> Job:
    path = tmp_path / "few.toml"
    path.write_text(text)
    folder = tmp_path / "store"
    return Job(Suite.read(str(path)), Wanted.here(), tmp_path, folder, "cpu", threads=1)


@pytest.mark.parametrize(
    ("text", "resources", "words"),
    [
        ("local:0", (), "there is local, local:N, ray"),
        ("cloud", (), "there is local, local:N, ray"),
        ("ray:", (), "there is local, local:N, ray"),
        ("local:2", ("cpus=1",), "--launch local:N has time alone"),
        ("local", ("time=1h",), "is for workers: --launch local:1 has one"),
        ("ray", ("time=1h",), "--launch ray has cpus and gpus and memory alone"),
        ("slurm", (), "slurm:local runs the jobs on this machine"),
        ("slurm:local", ("gpus=0.5",), "Slurm gives whole GPUs"),
    ],
)
def test_a_place_that_is_not_there_is_told(tmp_path, text, resources, words):
    with pytest.raises(BadInput, match=words):
        engine_of(text, resources, job(tmp_path))


@pytest.fixture
def eight_gpus(monkeypatch):
    """A machine that says it has eight; nothing is computed on them."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)


@pytest.mark.parametrize(
    ("device", "ranks", "words"),
    [
        ("auto", 9, "--ranks 9 needs 9 GPUs, which are not here: this machine has 8 GPUs"),
        ("cuda:6", 4, "--ranks 4 needs 4 GPUs from cuda:6 on, which are not here"),
    ],
)
@pytest.mark.parametrize("where", ["local", "local:2"])
def test_more_ranks_than_gpus_are_refused(tmp_path, eight_gpus, device, ranks, words, where):
    with pytest.raises(BadInput) as refused:
        engine_of(where, (), replace(job(tmp_path), device=device, ranks=ranks))
    assert words in str(refused.value) and "\n" not in str(refused.value)
    engine_of(where, (), replace(job(tmp_path), device="cpu", ranks=ranks))  # by gloo


@pytest.mark.parametrize(
    ("count", "ranks", "each", "per_device"),
    [
        (2, 4, ["0123", "4567"], 1),
        (2, 3, ["012", "345"], 1),
        (3, 4, ["0123", "4567", "0123"], 2),
        (3, 1, ["0", "1", "2"], 1),
        (9, 1, [*"012345670"], 2),
    ],
)
def test_processes_of_one_machine_share_its_gpus(
    tmp_path, eight_gpus, count, ranks, each, per_device
):
    engine = Processes(replace(job(tmp_path), device="auto", ranks=ranks), count)
    found = [[device_of(mine, rank) for rank in range(ranks)] for mine in engine.jobs]
    assert found == [[f"cuda:{number}" for number in told] for told in each]
    assert engine.per_device == per_device
    assert {mine.memory_share for mine in engine.jobs} == {1 / per_device}


@pytest.mark.parametrize(
    ("device", "ranks", "said", "asked"),
    [
        ("cuda", 1, (), (8, 1)),
        ("cuda", 8, (), (64, 8)),
        ("cuda", 2, ("gpus=4",), (32, 4)),
        ("cuda", 2, ("cpus=3",), (3, 2)),
        ("auto", 1, ("gpus=1",), (8, 1)),
        ("cuda", 2, ("gpus=0",), (1, 0)),
        ("cpu", 2, (), (1, 0)),
    ],
)
def test_slurm_asks_a_gpu_for_each_rank_and_eight_cores_for_each_gpu(
    plan_of, tmp_path, device, ranks, said, asked
):
    pytest.importorskip("submitit")
    (cell,) = plan_of(SUITE).cells
    engine = engine_of("slurm:local", said, replace(job(tmp_path), device=device, ranks=ranks))
    task = Task(cell, 0, "key", trains=("simclr",))
    told = engine.rules.of(task)
    assert (told.cpus, told.gpus) == asked
    engine._update(told)
    sent = engine.executor.parameters
    assert (sent["cpus_per_task"], sent["gpus_per_node"]) == asked


@pytest.mark.parametrize("where", ["slurm:local", "ray"])
def test_a_cluster_that_gives_fewer_gpus_than_ranks_is_refused(tmp_path, where):
    pytest.importorskip({"slurm:local": "submitit", "ray": "ray"}[where])
    eight = replace(job(tmp_path), device="cuda", ranks=8)
    with pytest.raises(BadInput, match=r"gpus=4: --ranks 8 needs a GPU for each of its 8"):
        engine_of(where, ("gpus=4",), eight)
    engine_of(where, ("readout: gpus=1",), eight)


def test_how_a_cell_ended_is_told_without_a_users_name():
    assert ending(RuntimeError("[Errno 12] can't allocate memory\nmore")) == (
        "oom",
        "RuntimeError: [Errno 12] can't allocate memory",
    )
    assert ending(OSError(str(Path.home() / "x")))[1] == f"OSError: ~{os.sep}x"


def command(folder: Path, store: str, *options: str, device: str = "cpu") -> list[str]:
    suite = folder / "few.toml"
    suite.write_text(DIGITS)
    run = [sys.executable, "-m", "benchbench", "run", str(suite), "--store", str(folder / store)]
    return [*run, "--device", device, *options]


def benchbench(folder: Path, store: str, *options: str, device: str = "cpu") -> int:
    line = command(folder, store, *options, device=device)
    done = subprocess.run(line, env=ONE_THREAD, capture_output=True)
    assert done.returncode in (0, 1), done.stderr.decode()
    return done.returncode


def records(folder: Path, store: str) -> dict[str, dict]:
    return {r.file_name: lasting(r) for r in read_records(folder / store / "records" / "few")}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A folder with the records of one process."""
    folder = tmp_path_factory.mktemp("alone")
    assert benchbench(folder, "local") == 0
    return records(folder, "local")


def kill_who_trains(store: Path, head: subprocess.Popen, spared: set[str]) -> None:
    """Kill whoever is in the middle of a stage that is not spared, and spare it from now on."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and head.poll() is None:
        begun = {path.stem for path in (store / "checkpoints").glob("*.safetensors")}
        for key, sign in Claims(store).signs().items():
            if key in begun - spared and not sign.lost:
                os.kill(sign.pid, signal.SIGKILL)
                spared.add(key)
                return
        time.sleep(0.005)
    raise AssertionError(f"nothing was trained: {head.communicate()[1].decode()}")


@pytest.mark.slow
@pytest.mark.parametrize("where", ["local:2", "slurm:local", "ray"])
def test_killing_a_worker_and_the_head_loses_nothing(tmp_path, alone, where):
    options, spared = ("--launch", where, "--checkpoint-every", "0.1s"), set()
    line, quiet = command(tmp_path, "store", *options), subprocess.PIPE
    with subprocess.Popen(line, env=ONE_THREAD, stderr=quiet, stdout=quiet) as head:
        kill_who_trains(tmp_path / "store", head, spared)
        kill_who_trains(tmp_path / "store", head, spared)
        head.kill()
    assert benchbench(tmp_path, "store", *options) == 0
    assert records(tmp_path, "store") == alone
    assert not Claims(tmp_path / "store").signs()
    assert not list((tmp_path / "store" / "checkpoints").glob("*.safetensors"))


@pytest.mark.slow
def test_a_process_of_a_stage_that_dies_ends_the_stage_which_goes_on_when_run_again(tmp_path):
    options, spared = ("--ranks", "2", "--checkpoint-every", "0.1s", "--only", "seed=0"), set()
    assert benchbench(tmp_path, "whole", *options) == 0
    line, quiet = command(tmp_path, "store", *options), subprocess.PIPE
    with subprocess.Popen(line, env=ONE_THREAD, stderr=quiet, stdout=quiet, text=True) as head:
        kill_who_trains(tmp_path / "store", head, spared)
        told = head.communicate()[1]
    assert head.returncode == 1
    assert "was killed by SIGKILL" in told and "erm · scans > photos · seed 0: target" in told
    begun = {path.stem for path in (tmp_path / "store" / "checkpoints").glob("*.safetensors")}
    assert begun <= spared, "what was killed either went on with the next readout, or waits"
    assert benchbench(tmp_path, "store", *options) == 0
    assert records(tmp_path, "store") == records(tmp_path, "whole")
    (cost,) = {
        (stage.processes, stage.reused)
        for record in read_records(tmp_path / "store" / "records" / "few")
        for stage in record.cost.stages
    }
    assert cost == (2, True)


BROKEN = """
import torch
import torch.distributed as dist
from benchbench import Objective, hookimpl


class Broken(Objective):
    n_views = 1

    def __init__(self, encoder, task, *, how="nan"):
        super().__init__()
        self.how, self.head = how, torch.nn.Linear(encoder.num_features, 1)

    def forward(self, encoder, batch):
        loss = self.head(encoder(batch.views[0])).mean()
        if self.how == "nan":
            return loss * torch.nan
        if dist.is_initialized() and dist.get_rank() == 1:
            raise ValueError("bad luck\\nin two lines")
        return loss


@hookimpl
def benchbench_objectives():
    return {"broken": Broken}
"""


@pytest.mark.slow
def test_what_goes_wrong_in_several_processes_is_told_as_in_one(tmp_path):
    (tmp_path / "broken.py").write_text(BROKEN)
    text = DIGITS.replace('chain = "simclr"', """chain = "broken(how='error')" """)
    text = text.replace('chain = "erm"', """chain = "broken" """).replace("[0, 1]", "[0]")
    text = text.replace('readout = "head"', "")
    line = command(tmp_path, "store", "--ranks", "2", "--plugin", "broken.py")
    (tmp_path / "few.toml").write_text(text)
    done = subprocess.run(line, env=ONE_THREAD, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    told = {r.method: (r.status, r.reason) for r in read_records(tmp_path / "store/records/few")}
    assert set(told.values()) == {
        ("failed", "RuntimeError: ValueError: bad luck"),
        ("diverged", "Diverged: the loss became nan at step 1"),
    }
    assert all(sign.lost for sign in Claims(tmp_path / "store").signs().values())  # free for others


def test_a_worker_that_dies_while_it_waits_is_replaced(tmp_path):
    """One stage is wanted by all, so that one of two workers has nothing to do at first."""
    asked = job(tmp_path, DIGITS.replace("[0, 1]", "[0]").partition('[[method]]\nchain = "erm')[0])
    plan = asked.plan(lambda done, total: None)
    audience = Count()

    class Killing(Processes):
        """Kills the idle worker as soon as the other has a task."""

        def start(self, tasks):
            super().start(tasks)
            for worker in self.workers:
                if worker.task is None and not self.killed:
                    worker.process.kill()
                    worker.process.join()
                    self.killed = True

    engine = Killing(asked, 2)
    engine.killed = False
    records = run_tasks(plan, plan.cells, engine, audience)
    assert engine.killed and [record.status for record in records] == ["scored"] * 2


def test_a_store_whose_claims_cannot_be_written_is_told_in_a_sentence(tmp_path):
    (tmp_path / "claims").write_text("in the way")
    with pytest.raises(BadInput, match="cannot be written"):
        Claims(tmp_path).take("key", "work")
    assert Claims(tmp_path).signs() == {}


@pytest.mark.gpu("its processes would have none")
@pytest.mark.parametrize("options", [("--ranks", "1"), ("--launch", "local:2"), ("--compile",)])
def test_on_a_gpu_a_suite_is_scored(tmp_path, options):
    """Two processes share one device; as many ranks as there are devices train a stage."""
    import torch

    if options[0] == "--ranks":
        options = ("--ranks", str(torch.cuda.device_count()))
    assert benchbench(tmp_path, "store", *options, device="cuda") == 0
    assert len(records(tmp_path, "store")) == 6
