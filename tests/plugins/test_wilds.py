"""WILDS' datasets from folders in their true layouts, beside what `wilds` itself makes of them."""

import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import Text, make_catalog, smoke
from trees import WILDS

from benchbench import TEST, TRAIN, UNKNOWN, VAL, BadInput
from benchbench.data.dataset_loading import described, missing_files, packed
from benchbench.data.inspection import counts
from benchbench.evaluation.metrics import METRICS, parts
from benchbench.extension.conformance import CHECKS, Check
from benchbench.extension.conformance.fixtures import Subject
from benchbench.extension.contracts import is_known
from benchbench.extension.errors import MissingData
from benchbench.store.artifacts import Store
from benchbench_wilds.package import pandas_of_2022, read
from benchbench_wilds.poverty import poverty

CLASSES = {
    "amazon": ("amazon_dataset", "AmazonDataset"),
    "camelyon17": ("camelyon17_dataset", "Camelyon17Dataset"),
    "celeba": ("celebA_dataset", "CelebADataset"),
    "civilcomments": ("civilcomments_dataset", "CivilCommentsDataset"),
    "domainnet": ("domainnet_dataset", "DomainNetDataset"),
    "fmow": ("fmow_dataset", "FMoWDataset"),
    "iwildcam": ("iwildcam_dataset", "IWildCamDataset"),
    "poverty": ("poverty_dataset", "PovertyMapDataset"),
    "rxrx1": ("rxrx1_dataset", "RxRx1Dataset"),
    "waterbirds": ("waterbirds_dataset", "WaterbirdsDataset"),
}
SHIFTS = dict.fromkeys(CLASSES, "train > test") | {
    "camelyon17": "hospital 0 + hospital 3 + hospital 4 > hospital 2",
    "domainnet": "sketch > real",
    "fmow": "2002-2012 > 2016-2017",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wilds")
    for plant in WILDS.values():
        plant(folder)
    return folder


@pytest.fixture(scope="module")
def data_of(root):
    """Of a dataset as a suite spells it, with its catalog entry's defaults."""
    catalog = make_catalog()

    def get(text):
        return described(catalog.resolve("dataset", text), root)

    return get


@pytest.fixture
def scatter(monkeypatch):
    """The one function of torch_scatter that `wilds` needs for its group metrics."""

    def mean_of(src, index, dim_size, reduce):
        assert reduce == "mean"
        count = torch.bincount(index, minlength=dim_size)
        return torch.zeros(dim_size).index_add_(0, index, src) / count.clamp(min=1)

    monkeypatch.setitem(sys.modules, "torch_scatter", SimpleNamespace(scatter=mean_of))


TEXTS = ("amazon", "civilcomments")


def by_path(data, column):
    values = getattr(data, column).tolist()
    return dict(zip(data.inputs.paths, values, strict=True))


@pytest.mark.parametrize("name", WILDS)
def test_every_listed_image_is_there_and_every_class_and_domain_has_a_name(data_of, name):
    data = data_of(name)
    if not data.vocabulary:
        assert len(set(data.inputs.paths)) == len(data.inputs.paths)
        assert all((data.inputs.root / path).is_file() for path in data.inputs.paths)
    assert all(source.is_file() for source in data.sources)
    named = [*data.class_names, *data.domain_names, *data.group_names]
    assert all(named) and len(set(data.class_names)) == len(data.class_names)
    assert data.licence != "unknown"


WITH_MORE = ["amazon", "camelyon17", "civilcomments", "fmow", "iwildcam", "poverty"]


@pytest.mark.parametrize("name", WITH_MORE)
def test_rows_without_label_hide_what_the_files_say(data_of, name):
    whole, labelled = data_of(name), data_of(f"{name}(unlabelled=False)")
    known = len(labelled.labels)
    assert not is_known(whole.labels[known:]).any() and len(whole.labels) > known
    assert (whole.split[known:] == TRAIN).all()
    assert is_known(labelled.labels).all()
    assert torch.equal(whole.labels[:known], labelled.labels)
    if whole.groups is not None:
        assert (whole.groups[known:] == (-1 if whole.groups.ndim == 1 else False)).all()


def test_hospitals_have_the_official_splits(data_of):
    data = data_of("camelyon17")
    for hospital in range(5):
        here = data.domains == hospital
        labelled = data.split[here & (data.labels != UNKNOWN)].bincount(minlength=3).tolist()
        assert labelled == ([0, 0, 16] if hospital in (1, 2) else [12, 4, 0])
        assert int((here & (data.labels == UNKNOWN)).sum()) == 12


def test_a_year_goes_to_its_period_and_other_is_no_continent(root, data_of):
    data = data_of("fmow")
    table = pd.read_csv(root / "fmow_v1.1" / "rgb_metadata.csv")
    for path, domain, split, group, label in zip(
        data.inputs.paths, data.domains, data.split, data.groups, data.labels, strict=True
    ):
        row = table.iloc[int(path.rpartition("_")[2].removesuffix(".png"))]
        year = int(row.timestamp[:4])
        assert domain == (year > 2012) + (year > 2015)
        if label == UNKNOWN:
            assert row.split in ({"seq"} if year <= 2012 else {"seq", "train"})
            continue
        assert row.split != "seq" and data.class_names[label] == row.category
        region = {"USA": "Americas", "FRA": "Europe"}.get(row.country_code)
        assert (data.group_names[group] if group >= 0 else None) == region
        assert split == (TEST if domain else {"train": TRAIN, "val": VAL, "test": TEST}[row.split])


def test_validation_is_drawn_where_wilds_has_none(data_of):
    for name in ("rxrx1", "domainnet", "domainnet(sentry=True)"):
        first, again = data_of(name), data_of(name)
        assert torch.equal(first.split, again.split)
        for domain in range(1 if name == "rxrx1" else len(first.domain_names)):
            here = first.split[first.domains == domain]
            train, val = int((here == TRAIN).sum()), int((here == VAL).sum())
            assert 0 < val < train
    other = data_of("rxrx1(seed=1)")
    assert not torch.equal(other.split, data_of("rxrx1").split)
    assert len(data_of("domainnet(sentry=True)").class_names) == 40
    assert len(data_of("domainnet").class_names) == 345


@pytest.mark.parametrize("name", ["waterbirds", "celeba"])
def test_a_group_is_named_after_its_class_and_its_confounder(root, data_of, name):
    data = data_of(name)
    for path, group, label in zip(data.inputs.paths, data.groups, data.labels, strict=True):
        assert data.group_names[group].startswith(data.class_names[label])
        if name == "waterbirds":  # the second digit of the file's name is the place
            place = ("land", "water")[int(path.rpartition("/")[2][1])]
            assert data.group_names[group].endswith(f"on {place}")


WILDS_KEYS = {
    "amazon": ("10th_percentile_acc", "tenth_percentile"),
    "camelyon17": ("acc_avg", "accuracy"),
    "civilcomments": ("acc_wg", "worst_group"),
    "poverty": ("r_wg", "worst_group_pearson"),
    "domainnet": ("acc_avg", "accuracy"),
    "rxrx1": ("acc_avg", "accuracy"),
    "fmow": ("acc_worst_region", "worst_group"),
    "iwildcam": ("F1-macro_all", "macro_f1"),
    "waterbirds": ("acc_wg", "worst_group"),
    "celeba": ("acc_wg", "worst_group"),
}


@pytest.mark.parametrize("name", WILDS)
def test_scores_are_those_of_the_dataset_s_own_eval(root, data_of, scatter, name):
    objects = ("split",) if name == "civilcomments" else ()
    data, theirs = data_of(name), read(*CLASSES[name], root, *objects)
    key, metric = WILDS_KEYS[name]
    assert data.metric == metric
    labelled = is_known(data.labels)
    if name == "domainnet":  # theirs has two domains, sketch and real
        labelled &= data.domains >= 4
    numbers = np.random.default_rng(0)
    y, metadata = theirs.y_array, theirs.metadata_array
    known = np.full(len(y), True)
    if name in ("amazon", "fmow", "rxrx1"):
        known = (theirs.split_array >= 0) & (theirs.split_array < 10)
    y, metadata = y[known], metadata[known]
    if name == "poverty":
        predictions = y + torch.from_numpy(numbers.normal(0, 1, y.shape)).float()
    else:
        noise = torch.from_numpy(numbers.integers(0, theirs.n_classes, len(y)))
        predictions = torch.where(torch.from_numpy(numbers.random(len(y)) < 0.6), y, noise)
    results, _ = theirs.eval(predictions, y, metadata)
    y, predictions = (values[:, 0] if values.ndim == 2 else values for values in (y, predictions))
    assert torch.equal(y, data.labels[labelled])  # the same rows in the same order
    groups = None if data.groups is None else data.groups[labelled]
    assert METRICS[metric](predictions, y, groups) == pytest.approx(results[key], abs=1e-6)
    if metric == "worst_group" and name not in ("fmow", "civilcomments"):
        ours = sorted((part.value, part.n) for part in parts(predictions, y, groups))
        said = sorted((results[k], results[k.replace("acc_", "count_", 1)])
                      for k in results if k.startswith("acc_") and ":" in k)  # fmt: skip
        assert np.allclose(ours, said, atol=1e-6)


@pytest.mark.parametrize("name", WILDS)
def test_prepared_pre_trained_read_off_and_recorded(root, tmp_path, name):
    sees = {"amazon": "all", "civilcomments": "all", "iwildcam": "all", "rxrx1": "source"}
    sees |= {"waterbirds": "source", "celeba": "source"}
    size = "length=16" if name in TEXTS else "size=16"
    views = {"encoder": "transformer(width=8, heads=2)", "augmentation": "token_dropout"}
    record = smoke(
        *(f"{name}({size})", SHIFTS[name], root, tmp_path, sees.get(name, "source+target")),
        **(views if name in TEXTS else {}),
    )
    assert record.data.metric == WILDS_KEYS[name][1]
    target = record.scores[-1]
    assert target.role == "target" and target.value is not None
    assert (target.accuracy is None) == (name == "poverty")
    listed = sum(group.n for group in target.groups)
    assert listed > target.n if name == "civilcomments" else listed <= target.n
    if name == "camelyon17":  # no rows are kept for testing in its sources
        assert record.value("source") is None
        assert [group.group for group in target.groups] == ["slide 20", "slide 21"]


TOO_SMALL = {"classes": ("domainnet", "fmow")}  # of their hundreds of classes a tree has two


def small_poverty(root, *, size=8):
    """As by default, in few pixels."""
    return poverty(root, size=size)


@pytest.mark.parametrize("name", WILDS)
def test_the_kit_finds_no_fault(root, tmp_path, name):
    entry = make_catalog().resolve("dataset", name).entry
    if name == "poverty":  # as small as its fold's 2,000 rows for evaluation allow
        entry = replace(entry, factory=small_poverty)
    subject = Subject(entry, root, tmp_path)
    for test in CHECKS["dataset"]:
        if test.__name__ == "no_row_twice" and name in ("iwildcam", "fmow", "poverty"):
            continue  # hundreds of images of 448 or 224 pixels; made of too few numbers
        outcome = Check(subject, test).run()
        allowed = name in TOO_SMALL.get(test.__name__, ())
        assert outcome.status != "failed" or allowed, (test.__name__, outcome.message)


def test_bands_are_read_scaled_and_kept_as_halves(root, tmp_path):
    choice = make_catalog().resolve("dataset", "poverty(size=6)")
    data = described(choice, root)
    pack = packed(choice, root, Store(tmp_path), 0, lambda done, total: None)
    assert pack.inputs.dtype == torch.float16 and pack.inputs.shape == (len(data.labels), 8, 6, 6)
    for row in (0, 2050, 3450):
        with np.load(root / data.inputs.paths[row]) as file:
            wanted = file["x"][:, 0, 0] / 8 + 0.5
        assert np.allclose(pack.inputs[row][:, 0, 0].numpy(), wanted, atol=1e-3)
    first = (pack.inputs[:, 0, 0, 0].float() - 0.5) * 4  # as the tree paints wealth
    known = is_known(pack.labels)
    assert torch.allclose(first[known], pack.labels[known], atol=5e-3)
    again = packed(choice, root, Store(tmp_path), 0, lambda done, total: None)
    assert torch.equal(again.labels.nan_to_num(), pack.labels.nan_to_num())
    (root / data.inputs.paths[7]).write_bytes(b"no numbers")
    try:
        with pytest.raises(BadInput, match=r"landsat_poverty_img_7.npz cannot be decoded"):
            packed(choice, root, Store(tmp_path / "other"), 0, lambda done, total: None)
    finally:
        np.savez(root / data.inputs.paths[7], x=np.zeros((8, 6, 5), np.float32))


def test_folds_of_countries_are_those_of_wilds(root, data_of):
    for fold, domain in (("A", "val"), ("B", "test")):  # where benin is
        data = data_of(f"poverty(fold='{fold}')")
        there = by_path(data, "domains")["poverty_v1.1/images/landsat_poverty_img_700.npz"]
        assert data.domain_names[there] == domain
    with pytest.raises(BadInput, match="Fold must be A"):
        data_of("poverty(fold='F')")


def test_texts_are_tokenised_by_words_of_training_rows(data_of):
    data = data_of("amazon(length=12)")
    words = data.vocabulary
    assert words[:2] == ("[UNK]", "[MASK]") and "awful" in words
    assert "user3" in words  # in val and test are users whose unlabelled reviews train
    assert "user4" not in words and "user6" not in words  # of test alone; in no split
    text = [words[token] for token in data.inputs[0].tolist() if token >= 0]
    assert text == ["user0", "says", ":", "awful", ",", "awful", "indeed", ";", "number", "0", "."]
    comments = data_of("civilcomments")
    assert (comments.inputs[5] == -1).all()  # an empty one, which is read as NaN


def test_counts_tell_labelled_from_unlabelled(root, tmp_path):
    choice = make_catalog().resolve("dataset", "iwildcam(size=8)")
    pack = packed(choice, root, Store(tmp_path), 0, lambda done, total: None)
    assert counts(pack) == [
        ("train", 24, 0, 12, 12, 3),
        ("val", 0, 0, 0, 24, 3),
        ("test", 0, 0, 0, 24, 3),
        ("extra", 0, 12, 0, 0, 0),
    ]


def test_missing_files_are_named_with_where_they_come_from(tmp_path):
    catalog = make_catalog()
    choice = catalog.resolve("dataset", "camelyon17")
    with pytest.raises(
        MissingData, match=r"camelyon17 needs .*, .* and 2 more below .* publish it at http"
    ):
        described(choice, tmp_path)
    without = catalog.resolve("dataset", "camelyon17(unlabelled=False)")
    assert not any("unlabeled" in path for path in missing_files(without, tmp_path))
    assert list(tmp_path.iterdir()) == []  # wilds would make the folder


def test_a_table_of_another_shape_is_one_sentence(root, tmp_path):
    WILDS["waterbirds"](tmp_path)
    table = tmp_path / "waterbirds_v1.0" / "metadata.csv"
    table.write_text(Text(table.read_text()).replace("place", "elsewhere"))
    with pytest.raises(BadInput, match="wilds cannot read WaterbirdsDataset .* 'place'"):
        described(make_catalog().resolve("dataset", "waterbirds"), tmp_path)


def test_workarounds_are_still_needed_and_leave_pandas_as_it_was(root):
    """When wilds mends one of these, its workaround may go."""
    from wilds.datasets.civilcomments_dataset import CivilCommentsDataset
    from wilds.datasets.fmow_dataset import FMoWDataset
    from wilds.datasets.rxrx1_dataset import RxRx1Dataset

    values, to_datetime, read_csv = pd.Series.values, pd.to_datetime, pd.read_csv
    with pytest.raises(ValueError, match="format"):
        FMoWDataset(root_dir=str(root), download=False)
    with pytest.raises(ValueError, match="read-only"):
        RxRx1Dataset(root_dir=str(root), download=False)
    with pytest.raises(TypeError, match="dtype 'str'"):
        CivilCommentsDataset(root_dir=str(root), download=False)
    with pandas_of_2022():
        assert pd.to_datetime is not to_datetime
        assert pd.Series(["a"], dtype="category").cat.categories[0] == "a"
    with pandas_of_2022("split"):
        assert pd.read_csv is not read_csv
    assert pd.read_csv is read_csv and pd.Series.values is values and pd.to_datetime is to_datetime


def test_importing_wilds_opens_no_socket(root):
    script = f"""
import sys
def heard(event, arguments):
    if event.startswith("socket."):
        print("socket", event, arguments, flush=True)
sys.addaudithook(heard)
from pathlib import Path
from benchbench_wilds import waterbirds
waterbirds(Path({str(root)!r}))
assert "outdated" not in sys.modules
import threading
assert threading.active_count() == 1, threading.enumerate()
print("done")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "done\n", done.stdout + done.stderr
