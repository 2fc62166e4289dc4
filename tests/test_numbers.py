"""Labels that are numbers, from the pack to the board."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from audiences import quiet
from safetensors.torch import load_file
from scipy.stats import pearsonr
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from tiny import Text, heights, make_plan

from benchbench import TEST, TRAIN, BadInput
from benchbench.data.inspection import contact_sheet, counts, lonely
from benchbench.data.pack import in_memory
from benchbench.data.splits import draw_split
from benchbench.evaluation.features import Features
from benchbench.evaluation.readouts.knn import knn
from benchbench.evaluation.readouts.linear_probe import linear, probe
from benchbench.evaluation.readouts.ridge import ridge
from benchbench.execution.cell import execute
from benchbench.extension.contracts import supervised_loss
from benchbench.leaderboard.board_folder import Source, expected_of
from benchbench.leaderboard.table import board
from benchbench.leaderboard.table_formats import render

SUITE = Text("""
name = "numbers"
dataset = "heights"
shifts = ["left > right"]
seeds = [0]
encoder = "small_cnn(width=4)"
precision = "fp32"
readout = "READOUT"
stage = { steps = STEPS, batch_size = 12, lr = 0.01, augmentation = "noise" }
[[method]]
chain = "CHAIN"
""")


def planned(tmp_path, chain, readout="linear", steps=2):
    text = SUITE.replace("CHAIN", chain).replace("READOUT", readout).replace("STEPS", str(steps))
    return make_plan(text, tmp_path / "store", tmp_path)


def features(rows, seed):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, 6, generator=generator)
    return Features(z, (z @ torch.arange(6.0) + torch.randn(rows, generator=generator)))


def test_ridge_is_scikit_learns_at_the_penalty_with_the_least_error():
    train, val, test = (features(n, seed) for n, seed in ((80, 0), (40, 1), (30, 2)))
    for readout in (linear, ridge):
        fitted = readout(penalties=12)(train, val, train.z, 0)
        path = torch.logspace(-6, 5, 12, dtype=torch.float64).tolist()
        models = [Ridge(alpha=80 * a).fit(train.z.double(), train.labels.double()) for a in path]
        errors = [(m.predict(val.z.double()) - val.labels.double().numpy()) ** 2 for m in models]
        best = min(range(12), key=lambda i: errors[i].mean())
        assert fitted.chosen["a"] == path[best]
        wanted = torch.from_numpy(models[best].predict(test.z.double()))
        assert torch.allclose(fitted.scores(test.z)[:, 0], wanted, atol=1e-8)
    layer = probe(train, val, 0)
    full = ridge()(train, val, train.z, 0).scores(test.z)
    assert layer.out_features == 1 and torch.allclose(layer(test.z).double(), full, atol=1e-4)


def test_neighbours_give_their_weighted_mean():
    train, test = features(80, 0), features(30, 2)
    fitted = knn(k=(5,), temperature=0.5)(train, features(40, 1), train.z, 0)
    unit = lambda z: torch.nn.functional.normalize(z, dim=1).numpy()  # noqa: E731
    model = KNeighborsRegressor(
        5, metric="cosine", algorithm="brute", weights=lambda distance: np.exp(-distance / 0.5)
    )
    wanted = model.fit(unit(train.z), train.labels.numpy()).predict(unit(test.z))
    assert torch.allclose(fitted.scores(test.z)[:, 0].double(), torch.tensor(wanted), atol=1e-4)


def test_the_loss_is_the_squared_error_of_what_is_known():
    scores = torch.tensor([[1.0], [2.0], [5.0]], requires_grad=True)
    loss = supervised_loss(scores, torch.tensor([0.5, torch.nan, 7.0]))
    assert loss.item() == pytest.approx((0.25 + 4) / 2)
    loss.backward()
    assert scores.grad.flatten().tolist() == pytest.approx([0.5, 0.0, -2.0])
    assert supervised_loss(scores, torch.full((3,), torch.nan)).item() == 0


@pytest.mark.parametrize(
    ("chain", "least"),
    [  # of three seeds the least is .85; after simclr, of five, 0.03 to 0.72: no more than a score
        *(("erm", 0.6), ("dann", 0.6), ("coral", 0.6), ("afn", 0.6), ("dan", 0.6)),
        *(("erm > noisy_student", 0.6), ("simclr > lp_ft", -1.0)),
    ],
)
def test_numbers_are_learned_and_scored(tmp_path, chain, least):
    plan = planned(tmp_path, chain, "head", steps=60)
    (cell,) = plan.cells
    plan.check(cell)
    record = execute(cell, plan, quiet)
    assert record.status == "scored"
    source, target = record.scores
    assert source.accuracy is None and source.per_class_mean is None
    assert source.value > least  # bars of three heights, seen by a head on few features
    assert [group.group for group in target.groups] == ["one", "other"]
    assert target.value == min(group.value for group in target.groups)
    made = board(Source("numbers", expected_of([record]), (record,)))
    assert "Worst group pearson" in render(made)


@pytest.mark.gpu
@pytest.mark.parametrize("chain", ["erm", "simclr > lp_ft", "dann", "erm > noisy_student"])
def test_numbers_are_learned_on_a_gpu(tmp_path, chain):
    text = SUITE.replace("CHAIN", chain).replace("READOUT", "head").replace("STEPS", "60")
    plan = make_plan(text, tmp_path / "store", tmp_path, device="cuda")
    (cell,) = plan.cells
    plan.check(cell)
    assert execute(cell, plan, quiet).scores[0].value > 0.6


def test_the_record_is_of_the_predictions_that_are_kept(tmp_path):
    plan = planned(tmp_path, "erm", "ridge", steps=30)
    (cell,) = plan.cells
    record = execute(cell, plan, quiet)
    (file,) = (tmp_path / "store").rglob(f"{record.file_name.removesuffix('.json')}*.safetensors")
    predictions, pack = load_file(file)["right"], plan.pack
    rows = pack.rows("right", TEST)
    assert predictions.dtype == pack.labels.dtype == torch.float32
    for number, group in enumerate(record.scores[1].groups):
        inside = pack.groups[rows] == number
        r = pearsonr(predictions[inside], pack.labels[rows][inside])[0]
        assert group.value == pytest.approx(r, abs=1e-5) and group.n == int(inside.sum())
    assert record.data.n_labelled == len(pack.with_label(pack.rows("left", TRAIN)))


@pytest.mark.parametrize(
    ("chain", "readout", "sentence"),
    [
        ("fixmatch", "linear", "fixmatch wants classes, and the data's labels are numbers"),
        ("vada", "linear", "vada wants classes"),
        ("jan", "linear", "jan wants classes"),
        ("sentry", "linear", "sentry wants classes"),
        ("erm > dirt_t", "linear", "dirt_t wants classes"),
        ("simclr", "prototype", "readout prototype wants classes, and labels are numbers; there"),
    ],
)
def test_what_wants_classes_is_refused(tmp_path, chain, readout, sentence):
    plan = planned(tmp_path, chain, readout)
    with pytest.raises(BadInput, match=sentence):
        plan.check(plan.cells[0])


def test_swav_takes_as_many_prototypes_as_wilds_does_for_numbers(tmp_path):
    plan = planned(tmp_path, "swav(small=0)")
    network = plan.catalog.resolve("encoder", "small_cnn").build(plan.pack.task)
    swav = plan.catalog.resolve("objective", "swav").build(network, plan.pack.task)
    assert len(swav.prototypes) == 1000


def test_numbers_are_split_counted_and_shown(tmp_path):
    data = heights(None)
    pack = in_memory(data)
    split = draw_split(data.labels, data.domains, None, data.domain_names, 0)
    for domain in range(3):
        here = split[data.domains == domain]
        assert here.bincount().tolist() == [88, 14, 18], "of 88 labelled rows 18 test, 14 validate"
        assert (here[data.labels[data.domains == domain].isnan()] == 0).all()
    assert counts(pack)[0] == ("left", 48, 24, 16, 24, 0) and lonely(pack) == []
    sheet = contact_sheet(pack, None, 10, 4, 2, 0)
    assert sheet.height > 4 * 16  # three thirds, and rows without label
    with pytest.raises(BadInput, match="labels must be finite"):
        in_memory(replace(data, labels=data.labels / 0))
