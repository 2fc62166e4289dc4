"""Rows 2 and 10: processes that are asked to stop, and plugins that go wrong as they are loaded."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from audiences import Silent
from cases import QUICK

from benchbench.execution import job as jobs
from benchbench.execution.job import Job, Task
from benchbench.execution.local import run_cells
from benchbench.execution.slurm import Work
from benchbench.extension import process_isolation
from benchbench.extension.catalog import Catalog, Entry, Plugin, Wanted, load
from benchbench.extension.errors import BadInput
from benchbench.store.locks import Claims
from benchbench.training import stop_signals
from benchbench.training.stop_signals import raised_by

LONG = QUICK.replace("steps = 2", "steps = 100000").replace('"tiny"', '"digits"').replace(
    "left > right", "scans > photos"
)  # fmt: skip
DEAF = """
import time
from multiprocessing import parent_process

import torch
from benchbench import Objective, hookimpl

class Deaf(Objective):
    n_views = 1

    def __init__(self, encoder, task):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, encoder, batch):
        if parent_process() is None:  # the command itself, which tries a step to know its memory
            return encoder(batch.views[0]).mean() * self.scale
        open("begun", "w").close()
        while True:
            try:
                time.sleep(60)
            except BaseException:
                pass

@hookimpl
def benchbench_objectives():
    return {"deaf": Deaf}
"""
PIPE = subprocess.PIPE


def started(folder: Path, *words: str, text: str = LONG) -> subprocess.Popen:
    (folder / "suite.toml").write_text(text)
    command = [sys.executable, "-m", "benchbench", "run", "suite.toml", "--device", "cpu", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=PIPE, stderr=PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def wait_for(there, child: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not there():
        assert child.poll() is None and time.monotonic() < deadline, child.communicate()
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_row_02_asked_to_stop_it_gives_back_its_claims_and_leaves_a_checkpoint(tmp_path, number):
    store = tmp_path / ".benchbench"
    with started(tmp_path, "--checkpoint-every", "0.1s") as child:
        wait_for(lambda: [*store.glob("checkpoints/*.safetensors")], child)
        child.send_signal(number)
        err = child.communicate(timeout=60)[1]
    assert child.returncode == 130, err
    assert "Stopped. What was finished is kept; go on with: benchbench run" in err
    assert "Traceback" not in err and Claims(store).signs() == {}
    assert [*store.glob("checkpoints/*.safetensors")]


NINE = QUICK.replace("steps = 2", "steps = 9")


class Stopping(Silent):
    """Sends signals to this process at some step, and notes which steps there were."""

    def __init__(self, at: int, *numbers: int) -> None:
        self.at, self.numbers, self.steps = at, numbers, []

    def cell_starts(self, cell):
        return lambda stage: self.step

    def step(self, done, loss):
        self.steps.append(done)
        for number in self.numbers if done == self.at else ():
            os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("at", [3, 9])
def test_row_02_asked_to_stop_it_keeps_every_step_that_was_done(plan_of, tmp_path, number, at):
    plan, before = plan_of(NINE), signal.getsignal(number)
    stopped = Stopping(at, number)
    with pytest.raises(KeyboardInterrupt), raised_by():
        run_cells(plan, plan.cells, stopped)
    assert stopped.steps == [*range(1, at + 1)] and signal.getsignal(number) is before
    kept = {
        kind: [*(tmp_path / "store" / kind).glob("*.safetensors")]
        for kind in ("checkpoints", "stages")
    }
    assert [len(kept["checkpoints"]), len(kept["stages"])] == ([1, 0] if at < 9 else [0, 1])
    again = Stopping(0)
    (record,) = run_cells(plan, plan.cells, again)
    assert again.steps == [*range(at + 1, 10)]
    shutil.rmtree(tmp_path / "store")
    (undisturbed,) = run_cells(plan_of(NINE), plan.cells, Silent())
    assert record.artifacts == undisturbed.artifacts and record.scores == undisturbed.scores


def test_row_02_asked_twice_it_does_not_wait_for_a_checkpoint(plan_of, tmp_path):
    plan = plan_of(NINE)
    with pytest.raises(KeyboardInterrupt), raised_by():
        run_cells(plan, plan.cells, Stopping(3, signal.SIGTERM, signal.SIGINT))
    assert not [*(tmp_path / "store" / "checkpoints").glob("*")]
    assert Claims(tmp_path / "store").signs() == {}


def test_row_02_a_step_that_does_not_end_is_not_waited_for(plan_of, tmp_path, monkeypatch):
    plan = plan_of(NINE)
    monkeypatch.setattr(stop_signals, "GRACE", 0.2)

    class Hanging(Stopping):
        def step(self, done, loss):
            super().step(done, loss)
            if done == 3:
                time.sleep(600)

    with pytest.raises(KeyboardInterrupt), raised_by():
        run_cells(plan, plan.cells, Hanging(3, signal.SIGTERM))
    assert not [*(tmp_path / "store" / "checkpoints").glob("*")]


def test_row_02_what_goes_wrong_as_it_stops_does_not_keep_it_going(plan_of):
    plan = plan_of(NINE)

    class Wrong(Stopping):
        def step(self, done, loss):
            super().step(done, loss)
            if done == 3:
                raise RuntimeError("as it stops")

    with pytest.raises(KeyboardInterrupt), raised_by():
        run_cells(plan, plan.cells, Wrong(3, signal.SIGTERM))


def test_row_02_slurm_puts_a_job_in_the_queue_again_with_its_checkpoint(
    plan_of, tmp_path, monkeypatch
):
    """As submitit has it: its handler asks for the job to be requeued, and exits."""
    pytest.importorskip("submitit")
    plan, (cell,) = plan_of(NINE), plan_of(NINE).cells
    audience, heard = Stopping(3, signal.SIGUSR2), []
    monkeypatch.setattr(jobs, "plan_of", lambda job: plan)
    monkeypatch.setattr(jobs, "silent", audience.cell_starts(cell))
    job = Job(plan.suite, Wanted(), tmp_path, tmp_path / "store", "cpu")

    def requeue(number, frame):
        heard.append(number)
        raise SystemExit(-1)

    before = signal.signal(signal.SIGUSR2, requeue)
    try:
        with pytest.raises(SystemExit):
            Work()(job, Task(cell, None, plan.cell_id(cell)))
        assert signal.getsignal(signal.SIGUSR2) is requeue
        cancelled = Stopping(5, signal.SIGINT)
        monkeypatch.setattr(jobs, "silent", cancelled.cell_starts(cell))
        with pytest.raises(KeyboardInterrupt):
            Work()(job, Task(cell, None, plan.cell_id(cell)))
        assert cancelled.steps == [4, 5]
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert heard == [signal.SIGUSR2] and audience.steps == [1, 2, 3]
    assert plan.record(cell) is None and Claims(tmp_path / "store").signs() == {}
    assert len([*(tmp_path / "store" / "checkpoints").glob("*.safetensors")]) == 1


def test_row_02_an_interrupt_while_workers_start_prints_no_traceback(tmp_path):
    with started(tmp_path, "--launch", "local:2") as child:
        assert "to run on" in child.stderr.readline()
        time.sleep(0.5)  # the server of which workers are forked imports torch
        os.killpg(child.pid, signal.SIGINT)  # as a terminal's Ctrl-C
        err = child.communicate(timeout=60)[1]
    assert child.returncode == 130 and "Traceback" not in err, err


@pytest.mark.slow
def test_row_02_a_second_interrupt_ends_workers_that_do_not_stop(tmp_path):
    (tmp_path / "deaf.py").write_text(DEAF)
    text = LONG.replace('"simclr"', '"deaf"')
    with started(tmp_path, "--launch", "local:1", "--plugin", "deaf.py", text=text) as child:
        wait_for((tmp_path / "begun").exists, child)
        child.send_signal(signal.SIGINT)
        time.sleep(1)
        began = time.monotonic()
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=60)
    assert child.returncode == 130 and time.monotonic() - began < 6  # and not after the grace of 10


BAD = {
    "raises": "raise RuntimeError('at import')",
    "exits": "import sys; sys.exit(3)",
    "ends": "import os; os._exit(7)",
    "crashes": "import ctypes; ctypes.string_at(0)",
    "hangs": "import time; open('begun', 'w').close(); time.sleep(1000)",
    "ends_in_a_hook": """
import os
from benchbench import hookimpl

@hookimpl
def benchbench_encoders():
    os._exit(0)
""",
    "works": """
from benchbench import hookimpl

print("said at import")

def of_works(task):
    return lambda images: images

@hookimpl
def benchbench_augmentations():
    return {"of_works": of_works}
""",
}


def install(folder: Path, *names: str) -> dict[str, str]:
    """Distributions as an installer leaves them; an environment that has them on its path."""
    for name in names:
        (folder / f"{name}_module.py").write_text(BAD[name] + "\n")
        info = folder / f"{name}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[benchbench]\n{name} = {name}_module\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), os.environ["PYTHONPATH"]))}


LIST = [sys.executable, "-m", "benchbench", "list"]


def test_row_10_plugins_that_raise_or_exit_are_named_and_the_others_are_there(tmp_path):
    environment = install(tmp_path, "raises", "exits")
    done = subprocess.run(LIST, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "simclr(" in done.stdout
    assert "plugin raises (raises 1.5) was set aside: RuntimeError: at import" in done.stderr
    assert "plugin exits (exits 1.5) was set aside: SystemExit: 3" in done.stderr


def test_row_10_a_plugin_that_hangs_is_named_when_it_is_interrupted_and_can_be_left_out(tmp_path):
    environment = install(tmp_path, "hangs")
    with subprocess.Popen(
        LIST, env=environment, cwd=tmp_path, stdout=PIPE, stderr=PIPE, text=True
    ) as child:
        wait_for((tmp_path / "begun").exists, child)
        child.send_signal(signal.SIGINT)
        err = child.communicate(timeout=60)[1]
    assert child.returncode == 130
    assert "Stopped while plugin hangs (hangs 1.5) was being loaded" in err
    without = subprocess.run([*LIST, "--no-plugin", "hangs"], env=environment, capture_output=True)
    assert without.returncode == 0, without.stderr


def test_row_10_plugins_that_end_the_interpreter_at_import_are_named_and_the_others_are_there(
    tmp_path,
):
    environment = install(tmp_path, "ends", "crashes", "raises", "works", "ends_in_a_hook")
    done = subprocess.run(LIST, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "simclr(" in done.stdout and "  of_works\n" in done.stdout
    assert done.stdout.count("said at import") == 1
    for name, how in (
        ("ends", "a process that loads it ended with status 7"),
        ("crashes", "a process that loads it was killed by SIGSEGV"),
        ("raises", "RuntimeError: at import"),
        ("ends_in_a_hook", "a process that loads it ended with status 0"),
    ):
        assert f"plugin {name} ({name} 1.5) was set aside: {how}" in done.stderr
    assert "Traceback" not in done.stderr


def test_row_10_a_plugin_that_hangs_at_import_is_set_aside_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(process_isolation, "PATIENCE", 1.0)
    for name in ("hangs", "works"):
        (tmp_path / f"{name}.py").write_text(BAD[name])
    monkeypatch.chdir(tmp_path)
    files = tuple(str(tmp_path / f"{name}.py") for name in ("hangs", "works"))
    with pytest.raises(BadInput, match="hangs.py: a process that loads it took more than 1 s"):
        load(Wanted(files))
    assert ("augmentation", "of_works") in load(Wanted(files[1:])).entries


@pytest.mark.parametrize("error", [RuntimeError("no"), SystemExit(3), MemoryError()])
def test_row_10_a_factory_that_raises_or_exits_is_named(error):
    def factory(task):
        raise error

    plugin = Plugin("bad", "tests", "0", "bad", "digest")
    entries = {("augmentation", "bad"): Entry("augmentation", "bad", factory, plugin)}
    choice = Catalog(entries, (plugin,)).resolve("augmentation", "bad")
    with pytest.raises(BadInput, match="augmentation bad cannot be built: "):
        choice.build(None)


@pytest.mark.slow
def test_row_10_a_step_that_hangs_fails_its_cell_alone_where_tasks_have_a_time(tmp_path):
    (tmp_path / "deaf.py").write_text(DEAF)
    text = LONG.replace("steps = 100000", "steps = 3") + '[[method]]\nchain = "deaf"\n'
    words = ("--launch", "local:1", "--resources", "deaf: time=2s", "--plugin", "deaf.py")
    with started(tmp_path, *words, text=text) as child:
        out, err = child.communicate(timeout=300)
    assert child.returncode == 1 and "| simclr" in out, err
    assert "deaf · scans > photos · seed 0: failed: it took more than 2 s" in err
    assert all(sign.lost for sign in Claims(tmp_path / ".benchbench").signs().values())


CRASHING = (
    DEAF.partition("        open")[0]
    + """\
        {}

@hookimpl
def benchbench_objectives():
    return {{"deaf": Deaf}}
"""
)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["import os; os._exit(7)", "import ctypes; ctypes.string_at(0)"])
def test_row_10_a_step_that_ends_its_process_fails_its_cell_alone_where_workers_run_it(
    tmp_path, how
):
    """Where the command itself, which tries a first step of every kind, comes through that one."""
    (tmp_path / "deaf.py").write_text(CRASHING.format(how))
    text = LONG.replace("steps = 100000", "steps = 3") + '[[method]]\nchain = "deaf"\n'
    with started(tmp_path, "--launch", "local:1", "--plugin", "deaf.py", text=text) as child:
        out, err = child.communicate(timeout=300)
    assert child.returncode == 1 and "| simclr" in out, err
    assert "deaf · scans > photos · seed 0: failed: its process" in err and "3 times" in err
