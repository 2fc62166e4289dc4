"""What cells cost before any is run, and which of them a given time is spent on."""

import re
from dataclasses import replace
from itertools import chain as joined
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from suites import SMALL
from tiny import SUITE

from benchbench.cli import main
from benchbench.data.gathering import Streamed
from benchbench.execution import evaluation_cost
from benchbench.execution.job import Job
from benchbench.execution.local import run_cells
from benchbench.execution.progress import Progress
from benchbench.extension.catalog import Wanted
from benchbench.extension.contracts import Rows, Task
from benchbench.extension.errors import BadInput
from benchbench.suites import cost
from benchbench.suites.cost import Calibration, Pace, affordable, built, sized, total
from benchbench.suites.plan import build_views
from benchbench.training.budget import Budget
from benchbench.training.device import Machine, available_memory, left_by_groups
from benchbench.training.loop import Views, make_batch
from benchbench.training.memory import Growth, footprint_of
from benchbench_contrastive import SimCLR
from benchbench_encoders import timm_encoder

RESNET = "timm(model='resnet18', small_stem=True)"
VIT = "timm(model='vit_tiny_patch16_224')"
STAGE = 'stage = { steps = 6, batch_size = 12, lr = 0.01, augmentation = "noise" }'


def one_cell(plan_of, chain="simclr", encoder="small_cnn(width=16)", **stage):
    stage = {"steps": 6, "batch_size": 64, "lr": 0.01, **stage}
    fields = ", ".join(f"{key} = {value}" for key, value in stage.items())
    fields += ', augmentation = "noise", small = "shrink"'
    text = SUITE.replace(STAGE, f"stage = {{ {fields} }}").replace("small_cnn(width=4)", encoder)
    plan = plan_of(text.replace('chain = "simclr"', f'chain = "{chain}"'))
    (cell,) = plan.cells
    return plan, cell


def step_memory(plan, cell):
    (link,) = plan.links(cell)
    return Calibration(plan, timed=False).work(cell)[link.key].memory


def counted(plan, cell):
    """Bytes at the end of a forward pass of the whole batch, from the tensors themselves."""
    (link,) = plan.links(cell)
    encoder, objective = built(cell, link, plan)
    own = {p.data_ptr(): p for m in (encoder, objective) for p in (*m.parameters(), *m.buffers())}
    sizes = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()

    batch = make_batch(
        plan.feed(cell, link)(0), build_views(link, plan.pack.task), objective, 0, 0, 0.0
    )
    for view in batch.views + batch.weak + batch.small:
        keep(view)
    half = plan.machine.precision == "bf16"
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=half),
    ):
        loss = objective(encoder, batch)
    assert loss.isfinite()
    trained = sum(p.nbytes for p in own.values() if p.requires_grad)
    return sum(p.nbytes for p in own.values()) + 3 * trained + sum(sizes.values())


@pytest.mark.parametrize(
    ("chain", "encoder"),
    [
        ("simclr", "small_cnn(width=16)"),
        ("simclr", RESNET),
        ("coral", "small_cnn(width=16)"),
        ("moco", "small_cnn(width=16)"),
        ("swav(prototypes=6)", "small_cnn(width=16)"),
        ("mae", VIT),
    ],
)
def test_the_memory_of_a_step_is_told_without_the_batch(plan_of, chain, encoder):
    plan, cell = one_cell(plan_of, chain, encoder, batch_size=48)
    assert step_memory(plan, cell) == pytest.approx(counted(plan, cell), rel=0.15)
    half = replace(plan, machine=replace(plan.machine, precision="bf16"))
    assert step_memory(half, cell) == pytest.approx(counted(half, cell), rel=0.15)


def test_what_compares_all_pairs_grows_with_the_square_of_the_batch():
    assert Growth(8, [10, 4 * 4, 100], [20, 8 * 8, 100]).at(800) == 2000 + 800 * 800 + 100
    assert Growth(8, [30, 7], [20, 7, 13]).at(16) == 46  # nothing says what became of what


def test_sgd_keeps_less_than_adamw(plan_of):
    plan, cell = one_cell(plan_of)
    weights = sum(p.nbytes for m in built(cell, plan.links(cell)[0], plan) for p in m.parameters())
    other, same = one_cell(plan_of, optimizer='"sgd"')
    assert step_memory(plan, cell) - step_memory(other, same) == weights


def test_parts_take_less_memory(plan_of):
    whole, quarter, eighth = (
        step_memory(*one_cell(plan_of, encoder=RESNET, batch_size=48, parts=n)) for n in (1, 4, 8)
    )
    state = 4 * sum(p.nbytes for p in built_parameters(*one_cell(plan_of, encoder=RESNET)))
    assert (quarter - state) / (whole - state) == pytest.approx(1 / 4, abs=0.03)
    assert (eighth - state) / (whole - state) == pytest.approx(1 / 8, abs=0.03)


def built_parameters(plan, cell):
    return [p for module in built(cell, plan.links(cell)[0], plan) for p in module.parameters()]


@pytest.mark.parametrize(
    ("chain", "encoder", "share", "remedy"),
    [
        ("simclr", RESNET, 0.95, "set parts = 2 or batch_size = 24"),
        ("simclr", RESNET, 0.75, "set parts = 4 or batch_size = 12"),
        ("mae", VIT, 0.95, "set batch_size = 12"),
        ("simclr", RESNET, 0.1, "choose a smaller encoder"),
    ],
)
def test_what_does_not_fit_is_refused_and_never_trained(
    plan_of, monkeypatch, chain, encoder, share, remedy
):
    plan, cell = one_cell(plan_of, chain, encoder, batch_size=48)
    needed = step_memory(plan, cell)
    free = int(share * needed)
    monkeypatch.setattr(Machine, "free_memory", lambda self: free)
    monkeypatch.setattr(cost, "train", lambda *args, **options: pytest.fail("was trained"))
    with pytest.raises(BadInput) as refused:
        Calibration(plan).work(cell)
    assert str(refused.value) == (
        f"method {chain}: a step of {chain} with batch_size = 48 needs about {sized(needed)} of "
        f"memory, and {sized(free)} are free on {plan.machine.name}; {remedy}"
    )


def test_eight_ranks_hold_what_one_device_cannot():
    """ResNet-50, SimCLR, 4,096 images of 224 pixels in bf16: each of eight encodes 512 images."""
    task, batch = Task((3, 224, 224), 10, 2), 4096
    encoder = timm_encoder(task, model="resnet50").to(memory_format=torch.channels_last)

    def rows(count):
        numbers = torch.zeros(count, dtype=torch.int64)
        return Rows(torch.zeros(count, *task.input_shape, dtype=torch.uint8), numbers, numbers)

    views, card = Views(lambda images: images + 0), 140 * 10**9
    told = footprint_of(encoder, SimCLR(encoder, task), views, (rows(1), rows(2)), "bf16", "lars")
    budget = Budget(1, batch, 1.0, 1e-6, 0.1, "lars")
    needs = {ranks: told.bytes(budget, ranks) / 1e9 for ranks in (1, 2, 4, 8)}
    assert needs[1] == pytest.approx(366, rel=0.01)  # 91.7 for 1,024, as fake tensors say
    outside = 4 * batch * 150_528 * 4 / 1e9  # two views, and their concatenation, of float32
    assert needs[8] == pytest.approx(outside / 2 + needs[1] / 8, rel=0.2)
    assert needs[8] < 60 < needs[4] < 140 < needs[2]
    assert told.ranks_that_fit(budget, card, 1, 64) == 4
    assert told.ranks_that_fit(budget, card, 1, 2) is None
    assert told.parts_that_fit(budget, card, 2) == 2
    assert told.batch_that_fits(budget, card, 2, 2) == 2048


def test_a_batch_without_a_row_for_each_rank_is_refused(plan_of):
    plan, cell = one_cell(plan_of, batch_size=12, parts=4)
    Calibration(plan, timed=False, ranks=3).check(cell)
    words = "batch_size = 12 with parts = 4 has no row for each of --ranks 4; choose fewer"
    for processes in (1, None):
        with pytest.raises(BadInput, match=words):
            Calibration(plan, timed=False, ranks=4, processes=processes).check(cell)


def test_a_refusal_counts_by_rank_and_names_ranks_among_its_remedies(plan_of, monkeypatch):
    plan, cell = one_cell(plan_of, "simclr", RESNET, batch_size=48)
    (link,) = plan.links(cell)
    told = cost.footprint(cell, link, plan)
    needs = {ranks: told.bytes(link.stage.budget, ranks) for ranks in (1, 2, 4)}
    assert needs[1] > needs[2] > needs[4]
    free = (needs[2] + needs[4]) // 2
    monkeypatch.setattr(cost, "footprint", lambda cell, link, plan: told)
    monkeypatch.setattr(Machine, "free_memory", lambda self: free)
    monkeypatch.setattr(Machine, "name", "a card")
    gpus = replace(plan, machine=replace(plan.machine, device=torch.device("cuda")))
    vars(gpus).update(inputs=plan.pack.inputs)
    monkeypatch.setattr(Calibration, "_encoded", lambda self, cell: {})
    monkeypatch.setattr(cost, "features_memory", lambda text, plan: 0)
    Calibration(gpus, ranks=4).check(cell)
    for ranks, needed, where in ((1, needs[1], ""), (2, needs[2], " on each of 2 GPUs")):
        with pytest.raises(BadInput) as refused:
            Calibration(gpus, ranks=ranks).check(cell)
        parts, size = told.parts_that_fit(link.stage.budget, free, ranks), 24 if ranks == 2 else 12
        assert str(refused.value) == (
            "method simclr: a step of simclr with batch_size = 48 needs about "
            f"{sized(needed)} of memory{where}, and {sized(free)} are free on a card; set parts = "
            f"{parts} or batch_size = {size} or train on 4 GPUs with --ranks 4"
        )
    with pytest.raises(BadInput, match=f"about {sized(4 * needs[4])} of memory in 4 processes"):
        Calibration(plan, ranks=4).check(cell)  # on the CPU, whose memory they share


def test_features_that_do_not_fit_are_refused(plan_of, monkeypatch):
    plan = plan_of(SUITE.replace('chain = "simclr"', 'chain = ""').replace("=4)", "=16)"))
    monkeypatch.setattr(Machine, "free_memory", lambda self: 1_000_000)
    with pytest.raises(BadInput, match=r"encoder small_cnn\(width=16\) needs about .* 512 rows"):
        Calibration(plan).check(plan.cells[0])
    monkeypatch.undo()
    run(plan)
    monkeypatch.setattr(Machine, "free_memory", lambda self: 1_000_000)
    Calibration(plan).check(plan.cells[0])  # they are there


def run(plan):
    with Progress(len(plan.cells)) as progress:
        run_cells(plan, plan.cells, progress)


def test_a_step_that_fails_is_told_in_a_sentence(plan_of):
    plan, cell = one_cell(plan_of, "unstable(at=0, error='broken')", "small_cnn(width=4)")
    told = Calibration(plan)
    told.check(cell)  # a run records it as failed
    with pytest.raises(BadInput, match=r"a step of unstable.* fails: RuntimeError: broken"):
        told.work(cell)


def test_a_trial_in_which_the_loss_becomes_nan_has_a_time(plan_of):
    plan, cell = one_cell(plan_of, "unstable(at=0)", "small_cnn(width=4)")
    assert total(Calibration(plan).in_turn([cell])).seconds > 0


def test_a_calibration_is_of_compiled_encoders_where_the_run_is(plan_of, monkeypatch):
    plan, cell = one_cell(plan_of, encoder="small_cnn(width=4)")
    seen = []

    def train(*args, compiled, watch, **options):
        seen.append(compiled)
        for step in range(4):
            watch(step, torch.zeros(()))

    monkeypatch.setattr(cost, "train", train)
    for compiled in (False, True):
        machine = replace(plan.machine, compiled=compiled)
        Calibration(replace(plan, machine=machine)).work(cell)
    assert seen == [False, True]


METHODS = """
name = "tiny"
dataset = "tiny"
shifts = ["left > right", "left > odd"]
seeds = [3, 1]
encoder = "small_cnn(width=4)"
precision = "fp32"
baseline = "erm"
stage = { steps = 10, batch_size = 12, lr = 0.01, augmentation = "noise" }
[[method]]
chain = "simclr"
readout = ["linear", "knn"]
[[method]]
chain = "simclr > lp_ft"
readout = "head"
[[method]]
chain = "erm"
readout = "head"
"""
PACES = {"simclr": 4.0, "lp_ft": 2.0, "erm": 3.0}  # seconds for a step


@pytest.fixture
def paced(monkeypatch):
    """Steps take what PACES says, and features nothing. Which kinds were tried."""
    tried = []

    def pace(cell, link, plan):
        tried.append(link.stage.objective)
        return Pace(0.0, PACES[link.stage.objective])

    monkeypatch.setattr(cost, "pace_of", pace)
    monkeypatch.setattr(cost, "seconds_per_row", lambda encoder, plan: 0.0)
    return tried


def test_features_take_what_was_said_of_every_state_that_is_read_off(plan_of):
    text = SUITE.replace("precision", "snapshots = 3\nprecision").replace('"simclr"', '"erm"')
    plan = plan_of(text)
    said = total(Calibration(plan, timed=False).in_turn(plan.cells)).features
    run(plan)
    kept = [*(plan.store.root / "features").iterdir()]
    assert len(kept) == 2 * 3, "of two domains after two, four and six steps"
    assert 0 < sum(path.stat().st_size for path in kept) - said < 500 * len(kept), "headers"


def test_shared_work_costs_nothing_again(plan_of, paced):
    plan = plan_of(METHODS)
    told = Calibration(plan)
    cells = [cell for cell in plan.cells if cell.seed == 3 and str(cell.shift) == "left > right"]
    simclr, other_readout, tuned, erm = told.in_turn(cells)
    assert [e.seconds for e in (simclr, other_readout, tuned, erm)] == [40, 0, 20, 30]
    assert (other_readout.memory, other_readout.disk) == (0, cost.RECORD)
    assert told.in_turn([cells[2]])[0].seconds == 60
    (start, end) = plan.links(cells[2])
    rows = int((plan.pack.domains != plan.pack.domain_names.index("odd")).sum())
    facts = [plan.facts(cells[0].method.encoder, name) for name in ("simclr", "lp_ft")]
    assert simclr.kept == facts[0].nbytes + 4 * rows * facts[0].width + cost.RECORD
    assert simclr.disk == simclr.kept + 2 * 3 * facts[0].nbytes
    assert tuned.kept == facts[1].nbytes + 4 * rows * facts[1].width + cost.RECORD
    whole = total(told.in_turn(cells))
    assert whole.kept == simclr.kept + other_readout.kept + tuned.kept + erm.kept
    assert whole.checkpoint == max(simclr.checkpoint, tuned.checkpoint, erm.checkpoint)
    assert told.stages(cells) == 3


def test_each_kind_of_stage_is_tried_once(plan_of, paced):
    plan = plan_of(METHODS)
    told = Calibration(plan)
    assert len(told.in_turn(plan.cells)) == 16
    assert sorted(paced) == ["erm", "lp_ft", "simclr"]


def test_what_the_store_has_costs_nothing(plan_of):
    plan = plan_of(SUITE)
    before = total(Calibration(plan).in_turn(plan.cells))
    assert before.seconds > 0 and before.memory > 0
    assert Calibration(plan).stages(plan.cells) == 1
    run(plan)
    after = total(Calibration(plan).in_turn(plan.cells))
    assert (after.seconds, after.memory, after.disk) == (0, 0, cost.RECORD)
    assert Calibration(plan).stages(plan.cells) == 0


def named(cells):
    return [f"{cell.method.name} · {cell.shift} · {cell.seed}" for cell in cells]


BLOCK = ("erm", "simclr + linear", "simclr + knn", "simclr > lp_ft")  # 30, 40, 0 and 20 s


def block(shift, seed):
    return [f"{name} · {shift} · {seed}" for name in BLOCK]


def test_comparisons_are_bought_whole_before_repetitions(plan_of, paced):
    plan = plan_of(METHODS)
    told = Calibration(plan)
    blocks = [block(shift, seed) for seed in (3, 1) for shift in ("left > right", "left > odd")]
    for count in range(1, 5):
        bought = named(affordable(told, plan.cells, 90 * count))
        assert bought == [*joined(*blocks[:count])]


def test_what_is_left_is_filled_with_single_cells_baseline_first(plan_of, paced):
    plan = plan_of(METHODS)
    told = Calibration(plan)
    first, other = block("left > right", 3), block("left > odd", 3)
    assert named(affordable(told, plan.cells, 90 + 75)) == first + other[:3]
    assert named(affordable(told, plan.cells, 75)) == first[:3]
    assert named(affordable(told, plan.cells, 65)) == [first[0], other[0]]
    assert affordable(told, plan.cells, 20) == []


def test_the_cheapest_shift_comes_first(plan_of, paced, monkeypatch):
    plan = plan_of(METHODS)
    dear = plan.cells[0].shift
    pace = cost.pace_of

    def dearer(cell, link, plan):
        return Pace(0.0, pace(cell, link, plan).step * (1 + (cell.shift == dear)))

    monkeypatch.setattr(cost, "pace_of", dearer)
    monkeypatch.setattr(cost, "kind_of", lambda cell, link: (cell.shift, link.objective.text))
    taken = affordable(Calibration(plan), plan.cells, 1000)
    assert [str(cell.shift) for cell in taken[:8]] == ["left > odd"] * 4 + ["left > right"] * 4
    assert {cell.seed for cell in taken[:8]} == {3}


@pytest.mark.parametrize("seconds", [1, 33, 61, 100, 170, 222])
def test_no_more_is_spent_than_there_is(plan_of, paced, seconds):
    plan = plan_of(METHODS)
    told = Calibration(plan)
    taken = affordable(told, plan.cells, seconds)
    assert total(told.in_turn(taken)).seconds <= seconds
    assert len(set(taken)) == len(taken)
    done = {key for cell in taken for key in told.work(cell)}
    left = seconds - total(told.in_turn(taken)).seconds
    others = [cell for cell in plan.cells if cell not in taken]
    assert all(told.beyond(cell, done).seconds > left for cell in others)


@pytest.fixture
def invoke(tmp_path):
    (tmp_path / "small.toml").write_text(SMALL)

    def words(*options):
        fixed = ["run", str(tmp_path / "small.toml"), "--store", str(tmp_path / "store")]
        result = CliRunner().invoke(main, [*fixed, *options])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return words


def test_a_dry_run_tells_time_memory_and_disk(invoke):
    status, out, _ = invoke("--dry-run")
    figures = r"about \d+ s, \d+\.\d GB of memory, \d+(\.\d)? MB on disk"
    assert status == 0
    simclr, erm, whole = out.splitlines()
    assert re.fullmatch(f"simclr · scans > photos · seed 0: to run, {figures}", simclr)
    assert re.fullmatch(f"erm · scans > photos · seed 0: to run, {figures}", erm)
    assert re.match("0 cached, 2 to run, 0 cannot; 2 stages to train, about ", whole)
    size = r"\d+(?:\.\d)? MB"
    (memory,) = re.findall(
        rf", (\d+\.\d) GB of memory, {size} on disk, {size} of them features$", whole
    )
    assert float(memory) > 0.3, "the program itself, and its libraries"


def test_a_dry_run_says_what_cannot_fit_and_a_run_does_not_begin(invoke, monkeypatch, tmp_path):
    monkeypatch.setattr(Machine, "free_memory", lambda self: 100_000)
    status, out, _ = invoke("--dry-run")
    assert status == 2
    assert out.count("cannot run, because method") == 2 and "0 to run, 2 cannot" in out
    status, out, err = invoke()
    assert (status, out) == (2, "")
    assert err.count("\n") == 1 and "needs about" in err and "0.1 MB are free on" in err
    assert not (tmp_path / "store" / "stages").exists()


def test_a_dry_run_says_when_the_disk_is_too_small(invoke, monkeypatch):
    small = SimpleNamespace(free=9)
    monkeypatch.setattr("benchbench.store.artifacts.shutil.disk_usage", lambda path: small)
    status, out, err = invoke("--dry-run")
    assert status == 2 and "to run, about" in out and "no space left in store" in err


def test_a_budget_runs_what_fits(invoke, monkeypatch):
    paces = {"simclr": 4.0, "erm": 2.0}
    monkeypatch.setattr(cost, "pace_of", lambda c, link, p: Pace(0.0, paces[c.method.name]))
    monkeypatch.setattr(cost, "seconds_per_row", lambda encoder, plan: 0.0)
    monkeypatch.setattr(evaluation_cost, "trial", lambda *of: 0.0)
    status, out, _ = invoke("--dry-run", "--budget", "10s")
    assert status == 0
    assert "erm · scans > photos · seed 0: to run, about 6 s" in out
    assert "simclr · scans > photos · seed 0: over the budget" in out
    assert re.search("0 cached, 1 to run, .* 1 stages .*; 1 over the budget of 10 s$", out.strip())
    status, out, err = invoke("--budget", "5s")
    assert (status, out) == (2, "")
    assert "--budget 5 s is not enough for a cell; the cheapest takes about 6 s" in err
    status, out, err = invoke("--budget", "10s")
    assert status == 0 and "1 missing" in out
    assert "1 of 2 cells fit into 10 s and take about 6 s" in err
    status, out, err = invoke("--budget", "1min")
    assert status == 0 and "missing" not in out and "1 of 1 cells fit" in err
    assert "0 to run" in invoke("--budget", "1s")[2]


@pytest.mark.parametrize("text", ["8", "h", "-8h", "8 hours", "0min", "1e3s", "8h30", "nans", ""])
def test_a_budget_that_is_no_time_is_refused(invoke, text):
    status, out, err = invoke("--budget", text)
    assert (status, out) == (2, "")
    assert f"{text!r} is no time; write it like 45s, 90min, 1.5h or 2d" in err


def test_sizes_are_spelled_for_people():
    assert list(map(sized, (4e5, 3.2e6, 9.96e6, 99.9e6, 1e8, 9e8, 12.34e9))) == [
        "0.4 MB", "3.2 MB", "10 MB", "100 MB", "0.1 GB", "0.9 GB", "12.3 GB"
    ]  # fmt: skip


def test_free_memory_is_what_the_system_and_every_control_group_leave(tmp_path, monkeypatch):
    machine = Machine(torch.device("cpu"), "fp32")
    assert 0 < machine.free_memory() <= available_memory()
    groups = {"": ("max", 900), "job": ("1000", 700), "job/step": ("max", 300)}
    for name, (limit, used) in groups.items():
        folder = tmp_path / "cgroup" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.stat").write_text(f"anon {used}\nfile 250\n")
    own = tmp_path / "own"
    own.write_text("1:cpu:/elsewhere\n0::/job/step\n")
    assert left_by_groups(own, tmp_path / "cgroup") == [300]
    own.write_text("0::/\n")
    assert left_by_groups(own, tmp_path / "cgroup") == []
    assert left_by_groups(tmp_path / "none", tmp_path / "cgroup") == []
    monkeypatch.setattr("benchbench.training.device.left_by_groups", lambda: [300, 200])
    assert machine.free_memory() == 200


GB = 10**9


@pytest.fixture
def gpu(monkeypatch):
    """What torch tells of a GPU of 80 GB, of which programs hold something."""
    told = {"free": 80 * GB, "reserved": 0, "allocated": 0}
    cuda = "torch.cuda."
    monkeypatch.setattr(cuda + "mem_get_info", lambda device: (told["free"], 80 * GB))
    monkeypatch.setattr(cuda + "memory_reserved", lambda device: told["reserved"])
    monkeypatch.setattr(cuda + "memory_allocated", lambda device: told["allocated"])
    return told


@pytest.mark.parametrize(
    ("share", "free", "reserved", "allocated", "wanted"),
    [
        (1.0, 80, 0, 0, 80),
        (1.0, 50, 30, 10, 70),  # 20 of what torch has reserved are unused
        (0.25, 80, 0, 0, 20),
        (0.25, 62, 18, 15, 5),  # of its 20, 15 are in use
        (0.25, 3, 5, 5, 3),  # others have taken more than their share
        (0.25, 60, 20, 20, 0),
    ],
)
def test_a_process_may_take_its_share_of_a_gpu(gpu, share, free, reserved, allocated, wanted):
    gpu |= {"free": free * GB, "reserved": reserved * GB, "allocated": allocated * GB}
    machine = Machine(torch.device("cuda"), "fp32", memory_share=share)
    assert machine.free_memory() == wanted * GB


def test_a_worker_knows_its_share(plan_of, tmp_path):
    plan, _ = one_cell(plan_of)
    job = Job(plan.suite, Wanted(), tmp_path, plan.store.root, "cpu", memory_share=0.25)
    made = job.plan_with(plan.catalog, plan.store, lambda done, count: None)
    assert (made.machine.memory_share, plan.machine.memory_share) == (0.25, 1.0)


def test_inputs_on_a_gpu_give_way_to_a_step(plan_of, monkeypatch):
    """48 GB of inputs on a card of 80, as the issue has it, here of so many bytes: what a step
    needs is taken from them, and processes that start later count on none of the head's copy."""
    plan, _ = one_cell(plan_of)
    row = plan.pack.inputs[0].nbytes
    rooms = []
    monkeypatch.setattr("benchbench.suites.plan.resident", lambda *asked: rooms.append(asked[2:]))
    for free, needed, room in ((30, 20, None), (30, 30, None), (30, 46, 24), (10, 99, 0)):
        monkeypatch.setattr(Machine, "free_memory", lambda self, free=free: free * row)
        plan.__dict__["inputs"] = Streamed(plan.pack.inputs, torch.device("cpu"), near=40)
        assert plan.on_device == 40 * row
        assert Calibration(plan, processes=2).free == (40 + free) * row // 2
        plan.make_room(needed * row)
        assert rooms == ([] if room is None else [(room * row,)])
        rooms.clear()
    plan.__dict__["inputs"] = Streamed(plan.pack.inputs, torch.device("cpu"), near=40)
    plan.release()
    assert "inputs" not in plan.__dict__ and plan.on_device == 0
    plan.release()
    plan.make_room(10**15)
    assert rooms == []


def test_extracting_features_has_what_inputs_on_a_gpu_leave(plan_of, monkeypatch):
    """They give way to steps alone: 40 rows of 100 are theirs, and of 60 rows half at most."""
    plan, cell = one_cell(plan_of)
    row = plan.pack.inputs[0].nbytes
    monkeypatch.setattr(Machine, "free_memory", lambda self: 60 * row)
    monkeypatch.setattr(cost, "footprint", lambda *of: SimpleNamespace(bytes=lambda *of: 0))
    plan.__dict__["inputs"] = Streamed(plan.pack.inputs, torch.device("cpu"), near=40)
    for processes, most in ((1, 60 * row), (2, 25 * row)):
        monkeypatch.setattr(cost, "features_memory", lambda *of, most=most: most)
        Calibration(plan, processes=processes).check(cell)
        monkeypatch.setattr(cost, "features_memory", lambda *of, most=most: most + 1)
        with pytest.raises(BadInput, match="for 512 rows"):
            Calibration(plan, processes=processes).check(cell)


def test_a_dry_run_tells_how_fast_images_are_decoded(invoke, monkeypatch):
    """Beside how fast the fastest stage trains: 12 rows in a second of which 0.4 are waited."""
    monkeypatch.setattr(cost, "pace_of", lambda cell, link, plan: Pace(0.0, 1.0, 0.4))
    monkeypatch.setattr(cost, "images_per_second", lambda inputs, plan: 345.6)
    assert "decoded" not in invoke("--dry-run")[1]
    monkeypatch.setattr(cost, "Encoded", torch.Tensor)
    _, out, _ = invoke("--dry-run")
    assert (
        "in every epoch" in out and "about 346 images/s here, and training alone takes up to" in out
    )


def test_a_dry_run_says_whether_compiling_pays(invoke, monkeypatch):
    def pace(cell, link, plan):
        gains = cell.method.name == "simclr"
        return Pace(5.0, 1.0 if gains else 3.0) if plan.machine.compiled else Pace(0.0, 3.0)

    monkeypatch.setattr(cost, "pace_of", pace)
    _, out, _ = invoke("--dry-run", "--compile")
    assert (
        "--compile spares about 1 s in a stage of simclr on small_cnn(width=4): 5 s at first, then "
        "1000 ms a step and not 3000, for 3 steps" in out
    )
    assert "--compile costs about 5 s in a stage of erm" in out
    assert "--compile" not in invoke("--dry-run")[1]
