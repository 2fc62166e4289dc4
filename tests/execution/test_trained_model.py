"""A trained method on new images: as a module, as a table, as a file for other programs."""

import csv
import io
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import safetensors.numpy
import torch
import torch.nn.functional as F
from audiences import Silent
from click.testing import CliRunner
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from tiny import SUITE, make_plan
from torch import nn

from benchbench import BadInput, DomainData, ImageFiles, Supervised
from benchbench.cli import main
from benchbench.data.pack import in_memory
from benchbench.data.preparation import prepared
from benchbench.execution import model_export
from benchbench.execution.local import run_cells
from benchbench.execution.model_export import export
from benchbench.execution.trained_model import (
    Model,
    Pictures,
    cell_of,
    encoder_of,
    model_of,
    predict,
    readout_of_head,
)
from benchbench.extension.conformance.fixtures import TASK, TEXTS
from benchbench.store.artifacts import Store
from benchbench.suites.shift_features import stored_features
from benchbench_encoders import SmallCNN

READOUTS = ("linear", "ridge", "knn", "prototype", "pfa", "zero_shot", "erm", "mcd")
AFFINE = tuple(name for name in READOUTS if name not in ("knn", "mcd"))
ONNX = "the extra onnx is not installed"


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """Every readout, run: of one encoder of SimCLR, and heads that are linear and that are not."""
    folder = tmp_path_factory.mktemp("model")
    texts = folder / "texts.npy"
    np.save(texts, np.random.default_rng(0).normal(size=(3, 32)).astype(np.float32))
    read = [*READOUTS[:5], f"zero_shot(embeddings='{texts}')"]
    suite = SUITE.replace("steps = 6", "steps = 25")
    suite += f"readout = {json.dumps(read)}\n"
    for name in READOUTS[6:]:
        suite += f'[[method]]\nname = "{name}"\nchain = "simclr > {name}"\nreadout = "head"\n'
    made = make_plan(suite, folder / "store", folder)
    records = run_cells(made, made.cells, Silent())
    assert {record.status for record in records} == {"scored"}
    return made


def cell(plan, name):
    method = name if name in ("erm", "mcd") else f"simclr + {name}"
    return next(c for c in plan.cells if c.method.name.startswith(method))


def images(plan):
    """The target's test rows as the model reads them."""
    return plan.pack.inputs[plan.pack.rows("right", 2)].float() / 255


def recorded(plan, which):
    """Classes that the record's file holds of the target's test rows."""
    place = plan.store.records("tiny") / f"{plan.stem(which)}.safetensors"
    return load_file(place)["right"].long()


def test_an_encoder_gives_the_stored_features(plan):
    state = torch.get_rng_state()
    for name in ("linear", "mcd"):
        which = cell(plan, name)
        encoder = encoder_of(plan, which)
        kept = safetensors.numpy.load_file(
            plan.store.root / "stages" / f"{plan.encoder_key(which)}.safetensors"
        )
        state_now = encoder.state_dict()
        assert {f"encoder.{n}" for n in state_now} == {n for n in kept if n.startswith("encoder.")}
        rows = plan.pack.domains == plan.pack.domain_names.index("right")
        z = encoder(plan.pack.inputs[rows].float() / 255)
        stored = stored_features(plan.encoder_key(which), (("right",),), plan).parts[0].z
        assert (z - stored).abs().max() <= 1e-6 < stored.std()
        assert not encoder.training and not z.requires_grad
    assert torch.equal(state, torch.get_rng_state()), "nobody else's draws change"


@pytest.mark.parametrize("name", READOUTS)
def test_a_model_predicts_what_the_record_holds(plan, name):
    which = cell(plan, name)
    model = model_of(plan, which)
    found = model(images(plan)).argmax(1)
    assert torch.equal(found, recorded(plan, which))
    assert len(found.unique()) > 1
    assert model.class_names == ("low", "middle", "high") and model.input_shape == (3, 16, 16)
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_a_head_that_is_more_than_its_classifier_is_kept_whole():
    class Doubled(Supervised):
        def forward(self, encoder, batch):
            raise NotImplementedError

        def predict(self, z):
            return 2 * self.classifier(z).relu()

    z = torch.randn(9, SmallCNN(TASK, width=4).num_features)
    head = Doubled(SmallCNN(TASK, width=4), TASK)
    readout = readout_of_head(head, z)
    assert torch.equal(readout(z), 2 * F.linear(z, *head.classifier.parameters()).relu())


def test_probabilities_are_a_softmax_or_shares_of_votes_or_none(plan):
    x = images(plan)
    for name in ("linear", "erm", "mcd"):
        model = model_of(plan, cell(plan, name))
        scores = model(x).double().numpy()
        powers = np.exp(scores - scores.max(1, keepdims=True))
        wanted = powers / powers.sum(1, keepdims=True)
        np.testing.assert_allclose(model.probabilities(x).numpy(), wanted, atol=1e-6)
    for name in ("ridge", "prototype", "pfa", "zero_shot"):
        assert model_of(plan, cell(plan, name)).probabilities(x) is None

    which = cell(plan, "knn")
    model = model_of(plan, which)
    (chosen,) = [
        int(json.loads(p.read_text())["selection"]["chosen"]["k"])
        for p in plan.store.records("tiny").glob(f"{plan.stem(which)}.json")
    ]
    train = plan.pack.rows("left", 0)
    keys, asked = (
        model.encoder(rows).double().numpy() for rows in (plan.pack.inputs[train].float() / 255, x)
    )
    labels = plan.pack.labels[train].tolist()
    shares = model.probabilities(x)
    for row, z in enumerate(asked):
        cosines = [float(z @ k / np.linalg.norm(z) / np.linalg.norm(k)) for k in keys]
        votes = [0.0, 0.0, 0.0]
        for index in sorted(range(len(keys)), key=lambda i: -cosines[i])[:chosen]:
            votes[labels[index]] += np.exp(cosines[index] / 0.07)
        assert shares[row].tolist() == pytest.approx([v / sum(votes) for v in votes], abs=1e-3)


def test_a_number_is_predicted_with_no_probability(tmp_path):
    suite = SUITE.replace('dataset = "tiny"', 'dataset = "heights"')
    plan = make_plan(suite, tmp_path / "store", tmp_path)
    run_cells(plan, plan.cells, Silent())
    model = model_of(plan, plan.cells[0])
    place = plan.store.records("tiny") / f"{plan.stem(plan.cells[0])}.safetensors"
    x = images(plan)
    np.testing.assert_allclose(model(x)[:, 0], load_file(place)["right"], rtol=1e-5)
    assert model.probabilities(x) is None and model.class_names == ()
    as_files(plan, tmp_path / "new")
    found = predict(model, tmp_path / "new")
    order = [*range(7, 24), *range(7)]  # of the paths
    np.testing.assert_allclose(found.predicted, load_file(place)["right"][order], rtol=1e-5)
    assert found.columns == ("file", "prediction")
    assert [*found.rows()] == [*zip(found.paths, found.predicted, strict=True)]


# Files for other programs.


def described(path) -> dict:
    with safe_open(path, "numpy") as file:
        return json.loads(file.metadata()["benchbench"])


@pytest.mark.parametrize("name", AFFINE)
def test_weights_applied_by_hand_give_the_predictions(plan, tmp_path, name):
    which = cell(plan, name)
    assert export(model_of(plan, which), tmp_path / "m.safetensors") == "encoder and readout"
    kept = load_file(tmp_path / "m.safetensors")
    told = described(tmp_path / "m.safetensors")
    encoder = SmallCNN(plan.pack.task, width=4).eval()
    encoder.load_state_dict(
        {n.removeprefix("encoder."): t for n, t in kept.items() if n.startswith("encoder.")}
    )
    with torch.no_grad():
        z = encoder(images(plan)).numpy()
    if told["features"] == "scaled to length 1":
        z = z / np.linalg.norm(z, axis=1, keepdims=True)
    assert (told["features"] == "as they are") == (name != "zero_shot")
    scores = z @ kept["readout.weight"].numpy() + kept["readout.bias"].numpy()
    classes = ["low", "middle", "high"]
    assert told["class_names"] == classes
    assert scores.argmax(1).tolist() == recorded(plan, which).tolist()
    np.testing.assert_allclose(
        scores, model_of(plan, which)(images(plan)), rtol=1e-4, atol=1e-4 * np.abs(scores).max()
    )


def test_a_file_says_what_it_is_and_how_images_are_made(plan, tmp_path):
    which = cell(plan, "knn")
    said = export(model_of(plan, which), tmp_path / "m.safetensors")
    assert said == f"the encoder alone, as readout {which.method.readout}" + (
        "(k=(1, 5, 10, 20, 50), temperature=0.07) is no affine map"
    )
    assert {n.partition(".")[0] for n in load_file(tmp_path / "m.safetensors")} == {"encoder"}
    told, record = described(tmp_path / "m.safetensors"), plan.record(which)
    assert told["holds"] == said and told["input_shape"] == [3, 16, 16]
    assert told["images"] == {
        "colours": "RGB",
        "crop": None,
        "resize": "bilinear, as Pillow does",
        "values": "uint8 / 255",
    }
    assert (told["method"], told["shift"], told["seed"]) == (record.method, "left > right", 0)
    assert told["scores_are"] == "weights of votes"
    assert told["encoder"] == record.spec.encoder == "small_cnn(width=4, standardise=False)"
    assert told["readout"] == record.spec.readout
    assert told["encoder_sha256"] == record.artifacts.encoder_sha256
    assert told["data_fingerprint"] == record.data.fingerprint


@pytest.mark.parametrize("name", [pytest.param("linear", marks=pytest.mark.slow), "mcd"])
def test_an_exported_program_gives_the_scores_of_any_number_of_rows(plan, tmp_path, name):
    which = cell(plan, name)
    model = model_of(plan, which)
    export(model, tmp_path / "m.pt2")
    extra = {"benchbench.json": ""}
    program = torch.export.load(tmp_path / "m.pt2", extra_files=extra).module()
    assert json.loads(extra["benchbench.json"])["class_names"] == ["low", "middle", "high"]
    for rows in (1, 24):
        x = images(plan)[:rows]
        torch.testing.assert_close(program(x).double(), model(x).double(), rtol=1e-4, atol=1e-4)
    assert program(images(plan)).argmax(1).tolist() == recorded(plan, which).tolist()


@pytest.mark.slow
def test_an_onnx_file_gives_the_scores_of_any_number_of_rows(plan, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason=ONNX)
    onnx = pytest.importorskip("onnx", reason=ONNX)
    pytest.importorskip("onnxscript", reason=ONNX)
    which = cell(plan, "linear")
    model = model_of(plan, which)
    export(model, tmp_path / "m.onnx")
    props = {p.key: p.value for p in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert json.loads(props["benchbench"])["method"] == which.method.name
    session = runtime.InferenceSession(tmp_path / "m.onnx")
    for rows in (1, 24):
        x = images(plan)[:rows]
        (scores,) = session.run(["scores"], {"images": x.numpy()})
        np.testing.assert_allclose(scores, model(x), rtol=1e-4, atol=1e-4)
    assert scores.argmax(1).tolist() == recorded(plan, which).tolist()


def test_what_cannot_be_exported_is_said_and_nothing_is_written(plan, tmp_path, monkeypatch):
    def refused(name, to):
        with pytest.raises(BadInput) as caught:
            export(model_of(plan, cell(plan, name)), tmp_path / to)
        assert not [*tmp_path.iterdir()]
        return str(caught.value)

    assert "there is FILE.onnx, FILE.pt2, FILE.safetensors" in refused("linear", "m.pb")
    said = refused("knn", "m.pt2")
    assert said.startswith("readout knn(") and "linear, ridge, prototype, pfa, zero_shot" in said
    with monkeypatch.context() as patch:
        patch.setattr(model_export, "find_spec", lambda name: None)
        said = refused("linear", "m.onnx")
    assert said == (
        "onnx, onnxruntime, onnxscript are not installed, and an .onnx needs it: "
        'pip install "benchbench-shift[onnx]"'
    )
    wrong = dict(model_export.WRITERS)
    wrong[".pt2"] = lambda model: (b"content", lambda x: model(x) + 1e-3)
    monkeypatch.setattr(model_export, "WRITERS", wrong)
    assert "its scores of random inputs differ from the model's" in refused("prototype", "m.pt2")


def test_a_network_that_torch_cannot_export_is_named(plan, tmp_path):
    class Branches(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :32] * (1 if x.mean().item() > 0 else 2)

    model = model_of(plan, cell(plan, "linear"))
    model.encoder = Branches()
    with pytest.raises(BadInput, match=r"^encoder small_cnn\(.*cannot be exported to .pt2: "):
        export(model, tmp_path / "m.pt2")


# New images.


def as_files(plan, folder):
    """The target's test rows as PNG, in the order of their names, some in a folder below."""
    (folder / "a" / "b").mkdir(parents=True)
    for number, row in enumerate(plan.pack.rows("right", 2).tolist()):
        place = folder / "a" / "b" if number < 7 else folder
        pixels = plan.pack.inputs[row].permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(place / f"{number:03}.png")


@pytest.mark.parametrize("name", ["linear", "knn", "mcd"])
def test_files_of_test_rows_get_the_recorded_predictions(plan, tmp_path, name):
    as_files(plan, tmp_path)
    (tmp_path / ".000.png").write_text("hidden")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "000.png").write_text("hidden")
    (tmp_path / "a" / "notes.txt").write_text("skipped")
    (tmp_path / "a" / "up").symlink_to(tmp_path)  # has no end
    which = cell(plan, name)
    model = model_of(plan, which)
    with pytest.warns(UserWarning, match=r"are not read, .*: 1 \.txt; in a: 1 of 1"):
        found = predict(model, tmp_path, batch_size=5)
    numbers = [*range(7, 24), *range(7)]
    assert found.paths == tuple(f"{'a/b/' * (n < 7)}{n:03}.png" for n in numbers)
    names = [("low", "middle", "high")[k] for k in recorded(plan, which)]
    assert found.predicted == tuple(names[number] for number in numbers)
    assert found.columns[:3] == ("file", "prediction", f"{found.meaning} of low")
    torch.testing.assert_close(found.values.sum(1), torch.ones(24, dtype=torch.float64))
    path, said, *each = next(found.rows())
    assert ("low", "middle", "high")[int(np.argmax(each))] == said


def test_images_are_resized_as_those_of_the_dataset(tmp_path):
    draw = np.random.default_rng(0)
    for number in range(4):
        pixels = draw.integers(0, 255, (30 + number, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    paths = tuple(f"{number}.png" for number in range(4))
    zeros = torch.zeros(4, dtype=torch.int64)
    store, packs = Store(tmp_path / "store"), {}
    for crop in (None, 0.875):
        files = ImageFiles(tmp_path, paths, 16, crop)
        build = partial(DomainData, files, zeros, zeros, ("a",), ("d",))
        for _ in ("prepared", "opened"):
            pack = prepared({"dataset": f"{crop}"}, build, store, 0, lambda done, n: None)
            how = Pictures.of(pack)
            read = [torch.from_numpy(how.read(tmp_path / path, []).copy()) for path in paths]
            assert torch.equal(torch.stack(read), pack.inputs)
        packs[crop] = pack.inputs
    assert not torch.equal(packs[None], packs[0.875])


def test_pictures_fit_the_shape_and_channels_of_tensors_or_are_refused(tmp_path):
    def how(shape, kind=torch.uint8):
        zeros = torch.zeros(4, dtype=torch.int64)
        inputs = torch.zeros(4, *shape, dtype=kind)
        return Pictures.of(in_memory(DomainData(inputs, zeros, zeros, ("a",), ("d",))))

    grey = np.random.default_rng(0).integers(0, 255, (20, 30), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    wanted = np.asarray(Image.fromarray(grey).resize((12, 8), Image.Resampling.BILINEAR))
    for channels in (1, 3):
        found = how((channels, 8, 12)).read(tmp_path / "grey.png", [])
        np.testing.assert_array_equal(found, np.stack([wanted] * channels))
    Image.new("RGB", (5, 5), "red").save(tmp_path / "red.png")
    with pytest.raises(BadInput, match=r"red\.png has colours, and the model reads grey images"):
        how((1, 8, 12)).read(tmp_path / "red.png", [])
    assert how((4, 8, 8)) == "it reads 4 channels of uint8, and a picture has 1 or 3 of 8 bits"
    assert how((3, 8, 8), torch.float16).startswith("it reads 3 channels of float16")


def test_what_a_model_does_not_read_is_refused(plan, tmp_path):
    model = model_of(plan, cell(plan, "linear"))
    with pytest.raises(
        BadInput, match=r"reads float32 \[B, 3, 16, 16\], not uint8 \[2, 3, 16, 16\]"
    ):
        model(plan.pack.inputs[:2])
    with pytest.raises(BadInput, match=r"not float32 \[2, 3, 8, 16\]"):
        model(torch.zeros(2, 3, 8, 16))
    texts = Model(nn.Identity(), nn.Identity(), "score", TEXTS, ("a",), "it reads texts", {})
    with pytest.raises(BadInput, match="cannot read files of images: it reads texts"):
        predict(texts, tmp_path)
    with pytest.raises(BadInput, match=r"no file below .* has a name that ends in \.jpg, "):
        predict(model, tmp_path)
    with pytest.raises(BadInput, match="there is no folder .*nowhere"):
        predict(model, tmp_path / "nowhere")
    as_files(plan, tmp_path)
    for name in ("003.png", "012.png", "020.png"):
        (tmp_path / "a" / name).write_text("broken")
    with pytest.raises(BadInput, match=r"003\.png cannot be decoded: .*; nor can 2 others"):
        predict(model, tmp_path, batch_size=4)


# Which cell, and whether it is there.


def test_a_cell_is_named_or_what_there_is_is_said(tmp_path):
    suite = SUITE.replace('["left > right"]', '["left > right", "left > odd"]')
    suite = suite.replace("seeds = [0]", "seeds = [4, 2]")
    suite += '[[method]]\nchain = "erm"\n'
    plan = make_plan(suite, tmp_path / "store", tmp_path)
    for words, said in {
        ("erm",): "method erm has 2 shifts; choose the shift: left > right, left > odd",
        ("emr",): "no method of tiny is named 'emr'; did you mean 'erm'? there is erm, simclr",
        ("erm", "left > rigt"): "no domain 'rigt'; did you mean 'right'?",
        ("erm", "odd > left"): "has no shift 'odd > left'; there is left > odd, left > right",
        ("erm", "left > odd", 3): "method erm has no seed 3; there is 4, 2",
        ("erm", "left > odd", 2, 2): "method erm has no draw 2; there is 0",
    }.items():
        with pytest.raises(BadInput) as caught:
            cell_of(plan, *words)
        assert said in str(caught.value)
    assert str(cell_of(plan, "erm", "left>odd")) == "erm · left > odd · seed 4"
    assert str(cell_of(plan, "erm", "left > right", 2)) == "erm · left > right · seed 2"


def test_a_stage_that_is_not_there_or_damaged_is_said_with_the_command(plan, tmp_path):
    which = cell(plan, "erm")
    none = replace(plan, store=Store(tmp_path))
    with pytest.raises(BadInput) as caught:
        encoder_of(none, which, "benchbench run my.toml")
    assert str(caught.value) == (
        f"erm · left > right · seed 0 is not trained in store {tmp_path}; train it with: "
        "benchbench run my.toml --only 'method=erm,shift=left > right,seed=0'"
    )
    assert not [*tmp_path.iterdir()], "nothing is trained, and nothing kept"
    other = make_plan(SUITE, tmp_path / "store", tmp_path)
    run_cells(other, other.cells, Silent())
    place = tmp_path / "store" / "stages" / f"{other.links(other.cells[0])[-1].key}.safetensors"
    content = bytearray(place.read_bytes())
    content[-5] ^= 1
    place.write_bytes(content)
    record = f"{other.store.records('tiny') / other.stem(other.cells[0])}.json"
    with (
        pytest.warns(UserWarning, match="is damaged: set aside"),
        pytest.raises(BadInput, match=f"no longer its encoder, .*; remove {record} and train it"),
    ):
        model_of(other, other.cells[0])


def test_a_cell_that_diverged_has_no_encoder(tmp_path):
    plan = make_plan(SUITE.replace('"simclr"', '"unstable"'), tmp_path / "store", tmp_path)
    run_cells(plan, plan.cells, Silent())
    with pytest.raises(BadInput, match=r"has no trained encoder: it ended as diverged, "):
        encoder_of(plan, plan.cells[0])


PLUGIN = """
from benchbench import hookimpl
from benchbench.extension.conformance.fixtures import bars
from benchbench.suites.shift_features import stored_features


def tiny(root):
    return bars(40)


@hookimpl
def benchbench_datasets():
    return {"tiny": tiny}
"""


def test_both_commands_from_a_run_to_files(plan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bars.py").write_text(PLUGIN)
    (tmp_path / "s.toml").write_text(
        SUITE + '[[method]]\nname = "ridge"\nchain = "simclr"\nreadout = "ridge"\n'
    )

    def invoke(*words):
        result = CliRunner().invoke(main, [*words, "--plugin", "bars.py", "--device", "cpu"])
        assert isinstance(result.exception, SystemExit | None)
        return result.exit_code, result.stdout, result.stderr

    as_files(plan, tmp_path / "new")
    Image.new("RGB", (16, 16)).save(tmp_path / "new" / "=1+1,2.png")
    asked = ("predict", "s.toml", "simclr", "--images", "new", "--to", "out/p.csv")
    status, _, said = invoke(*asked)
    assert (status, (tmp_path / "out").exists()) == (2, False)
    assert said.splitlines()[-1].endswith(
        "train it with: benchbench run s.toml --device=cpu "
        "--only 'method=simclr,shift=left > right,seed=0'"
    )
    assert invoke("run", "s.toml")[0] == 0
    status, told, said = invoke(*asked)
    assert (status, told) == (0, "out/p.csv: 25 images predicted\n"), said
    rows = [*csv.DictReader(io.StringIO((tmp_path / "out" / "p.csv").read_text()))]
    assert rows[17]["file"] == "'=1+1,2.png", "no spreadsheet runs it"
    (place,) = (tmp_path / ".benchbench" / "records" / "tiny").glob("simclr--*.safetensors")
    wanted = [("low", "middle", "high")[k] for k in load_file(place)["right"]]
    found = {row["file"]: row["prediction"] for row in rows}
    assert [found[f"{'a/b/' * (n < 7)}{n:03}.png"] for n in range(24)] == wanted
    each = [[float(row[f"probability of {c}"]) for c in ("low", "middle", "high")] for row in rows]
    np.testing.assert_allclose(np.sum(each, 1), 1, atol=1e-5)

    assert invoke("export-model", "s.toml", "ridge", "--to", "m.pb")[0] == 2
    status, told, _ = invoke("export-model", "s.toml", "ridge", "--to", "m.safetensors")
    assert (status, told.endswith(" bytes, encoder and readout\n")) == (0, True)
    assert described(tmp_path / "m.safetensors")["method"] == "ridge"
    assert not [*tmp_path.rglob("*.part")]
