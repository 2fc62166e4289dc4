"""The suites of published protocols: planned without data, and run whole at smoke size."""

import json
import re
import tomllib

import pytest
from click.testing import CliRunner
from tiny import make_catalog
from trees import WILDS, living17, of_layout

from benchbench.cli import main
from benchbench.execution.local import run_cells
from benchbench.execution.progress import Progress
from benchbench.store.artifacts import Store
from benchbench.suites.plan import Plan
from benchbench.suites.suite import Suite, shipped_suites, text_of
from benchbench_files.layouts import LAYOUTS

FOLDERS = ("connect-not-collapse/", "domainbed-folders/", "targeted-augmentations/", "u-wilds/")
SUITES = [name for name in shipped_suites() if name.startswith(FOLDERS)]


@pytest.mark.parametrize("name", SUITES)
def test_without_data_every_cell_and_every_missing_file_is_told(name, tmp_path):
    suite = Suite.read(name)
    words = ["run", name, "--dry-run", "--data", str(tmp_path / "data"), "--store",
             str(tmp_path / "store")]  # fmt: skip
    result = CliRunner().invoke(main, words)
    lines = result.stdout.splitlines()
    cells = [line for line in lines if line.endswith("cannot run, because its data are missing")]
    assert len(cells) == len(suite.methods()) * len(suite.shifts) * len(suite.seeds)
    choice = make_catalog().resolve("dataset", suite.dataset)
    wanted = choice.entry.published.files(**choice.options)
    assert lines[len(cells) :] == [f"missing: {tmp_path / 'data' / path}" for path in wanted]
    assert result.exit_code == 2
    assert re.search("its authors publish it at http", result.stderr)


def small(name: str) -> Suite:
    """The suite with a step for each stage, small images and a small network."""
    fields = tomllib.loads(text_of(name))
    if "extends" in fields:
        common = tomllib.loads(text_of(fields.pop("extends")))
        fields = {**common, **fields, "stage": {**common["stage"], **fields.get("stage", {})}}
    if "text-common" in text_of(name):
        fields["dataset"] = fields["dataset"].partition("(")[0] + "(length=16)"
        fields["encoder"] = "transformer(width=8, heads=2)"
    else:
        dataset = fields["dataset"].removesuffix(")")
        fields["dataset"] = f"{dataset}{', ' if '(' in dataset else '('}size=16)"
        fields["encoder"] = "small_cnn(width=4)"
    fields |= {"seeds": [0], "precision": "fp32"}
    links = [
        link
        for method in fields["method"]
        for link in ([method] if isinstance(method["chain"], str) else [method, *method["chain"]])
        if isinstance(link, dict)
    ]
    for table in (fields["stage"], *links):
        table |= {key: value for key, value in SMALL.items() if key in table}
        if "small" in table:
            table["small"] = re.sub(r"size=\d+", "size=8", table["small"])
    return Suite.model_validate_json(json.dumps(fields))


SMALL = {"steps": 1, "batch_size": 8}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Every dataset of the suites, in its true layout and tiny."""
    folder = tmp_path_factory.mktemp("data")
    for name in (
        "amazon",
        "camelyon17",
        "civilcomments",
        "domainnet",
        "fmow",
        "iwildcam",
        "poverty",
    ):
        WILDS[name](folder)
    for factory, layout in LAYOUTS.items():
        if factory.__name__ in ("office_home", "pacs", "terra_incognita", "vlcs"):
            of_layout(folder, layout)
    living17(folder)
    return folder


QUICK = ("targeted-augmentations/camelyon17", "u-wilds/amazon")
FIXTURES = [s for s in SUITES if "entity30" not in s and "cifar" not in s]  # the two need others'


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
             for name in FIXTURES]
)  # fmt: skip
def test_with_data_it_runs_whole(name, data, tmp_path):
    suite = small(name)
    store = Store(tmp_path)
    plan = Plan.make(suite, make_catalog(), data, store, "cpu", lambda done, total: None)
    for cell in plan.cells:
        plan.check(cell)
    with Progress(len(plan.cells)) as progress:
        records = run_cells(plan, plan.cells, progress)
    assert {record.status for record in records} == {"scored"}, [r.reason for r in records]
