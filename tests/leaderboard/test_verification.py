"""Whoever edits an honest bundle is found out at the level that can know it."""

import json
import random
import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pytest
import torch
from audiences import Silent
from bundles import (
    NUMBERS,
    SUITE,
    Files,
    Honest,
    changed,
    hashed,
    judged,
    moved,
    once,
    predictions_of,
    record_name,
    tar_of,
    with_encoder,
    with_predictions,
    with_record,
)
from click.testing import CliRunner
from safetensors.numpy import load
from scipy.stats import t

from benchbench.api.submissions import recorded
from benchbench.cli import main
from benchbench.extension.errors import BadInput
from benchbench.leaderboard.board_folder import of_folder
from benchbench.leaderboard.bundle import (
    Credits,
    Malformed,
    narrowed,
    opened,
    submission_of,
    write_bundle,
)
from benchbench.leaderboard.consistency import Board, alike, alike_in_turn, rescored
from benchbench.leaderboard.reproduction import (
    compared,
    interval,
    other_validators,
    plan_for,
    reprobed,
    reproduced,
    stray,
)
from benchbench.leaderboard.verification import take_in, verdict_on
from benchbench.store.keys import snapshot_key
from benchbench.store.records import Validators, read_records, record_of

OTHER = "0" * 64


@pytest.fixture(scope="session")
def honest(tmp_path_factory) -> Honest:
    return once(SUITE, tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def numbers(tmp_path_factory) -> Honest:
    """Labels are numbers, and rows are in groups."""
    return once(NUMBERS, tmp_path_factory.getbasetemp())


@pytest.fixture
def away(tmp_path) -> Path:
    (tmp_path / "in" / "here").mkdir(parents=True)
    return tmp_path / "in" / "here"


def test_an_honest_bundle_is_consistent_and_can_be_read_off_again(honest, away):
    verdict = judged(honest.content, honest.board, away)
    assert (verdict.level, verdict.status, verdict.problems) == ("consistent", 0, ())
    assert verdict.methods == ("simclr(temperature=0.2)", "erm")
    assert verdict.notes == ("it is not signed",)
    verdict = judged(honest.content, honest.board, away, "re-probed", further(honest))
    assert (verdict.level, verdict.problems) == ("re-probed", ())
    assert "read off again, 0 of 384 predictions are others" in verdict.notes, "snapshots, too"
    assert judged(honest.content, None, away, "claimed").level == "claimed"


def test_an_honest_bundle_of_numbers_and_groups_is_consistent_too(numbers, away):
    verdict = judged(numbers.content, numbers.board, away, "re-probed", further(numbers))
    assert (verdict.level, verdict.problems) == ("re-probed", ())
    assert "read off again, 0 of 96 predictions are others" in verdict.notes


def silent(cells: int):
    return nullcontext(Silent())


def further(honest):
    return {
        "re-probed": lambda submission: reprobed(submission, honest.plan),
        "reproduced": lambda submission: reproduced(submission, honest.plan, None, silent),
    }


# --- what a board can know without plugins


def score(number: int = 1, **fields):
    """A record with other numbers in one of its scores."""
    return lambda f: with_record(f, lambda r: r["scores"][number].update(fields))


def spec(**fields):
    return lambda f: with_record(f, lambda r: r["spec"].update(fields))


def stage(method: str = "simclr", **fields):
    return lambda f: with_record(f, lambda r: r["spec"]["chain"][0].update(fields), method)


def data(**fields):
    return lambda f: with_record(f, lambda r: r["data"].update(fields))


def seeds(**fields):
    return lambda f: with_record(f, lambda r: r["seeds"].update(fields))


def record(**fields):
    return lambda f: with_record(f, lambda r: r.update(fields))


def artifacts(**fields):
    return lambda f: with_record(f, lambda r: r["artifacts"].update(fields))


def suite(**fields):
    return lambda f: hashed(changed(f, "suite.json", lambda s: s.update(fields)))


def manifest(**fields):
    return lambda f: changed(f, "manifest.json", lambda m: m.update(fields))


def fact(**fields):
    """The manifest with something else of a file."""

    def make(files):
        name = record_name(files)
        return changed(files, "manifest.json", lambda m: m["files"][name].update(fields))

    return make


def without(files: Files, *names: str) -> Files:
    return {name: content for name, content in files.items() if name not in names}


def missing_seed(files):
    name = record_name(files, seed=1)
    return hashed(without(files, name, predictions_of(name)))


def missing_method(files):
    gone = [name for name in files if "/erm--" in name]
    return hashed(without(files, *gone))


def moved_seed(files, seed=0, cell_id="f" * 64):
    """A record of seed 1 that is said to be of seed 0."""

    def change(fields):
        fields["seeds"]["train"], fields["cell_id"] = seed, cell_id

    return moved(dict(files), record_name(files, seed=1), change)


def copied_seed(files):
    """What seed 1 gave, said to be of seed 0, in all that is compared."""
    one, other = (json.loads(files[record_name(files, seed=seed)]) for seed in (1, 0))
    copy = {**one, "seeds": other["seeds"], "cell_id": other["cell_id"]}
    del copy["sha256"]
    copy["artifacts"] = {
        **one["artifacts"],
        "stages": other["artifacts"]["stages"],
        "encoder_sha256": other["artifacts"]["encoder_sha256"],
    }
    name = record_name(files, seed=0)
    beside = files[predictions_of(record_name(files, seed=1))]
    copies = {name: json.dumps(copy).encode(), predictions_of(name): beside}
    return hashed({**files, **copies})


def copied_encoder(files):
    """The encoder of seed 0 as that of seed 1."""
    keys = [json.loads(files[record_name(files, seed=s)])["artifacts"]["stages"][0] for s in (0, 1)]
    one, other = (f"encoders/{key}.safetensors" for key in keys)
    sha = json.loads(files[record_name(files, seed=0)])["artifacts"]["encoder_sha256"]
    copies = {**files, other: files[one]}
    return with_record(copies, lambda r: r["artifacts"].update(encoder_sha256=sha), seed=1)


def swapped(files):
    """Two records with each other's predictions."""
    one, other = (predictions_of(record_name(files, seed=seed)) for seed in (0, 1))
    return {**files, one: files[other], other: files[one]}


def renamed(files):
    name = record_name(files)
    other = name.replace("--0--", "--1--")
    files = {**without(files, name, predictions_of(name)), other: files[name],
             predictions_of(other): files[predictions_of(name)]}  # fmt: skip
    return hashed(files)


def one_more_right(tensors):
    """A prediction on the target that was another."""
    tensors["right"][0] = (tensors["right"][0] + 1) % 3


def renamed_domain(tensors):
    return {name.replace("right", "odd"): values for name, values in tensors.items()}


def cut_to(rows: int):
    return lambda tensors: {name: values[:rows] for name, values in tensors.items()}


def of_no_class(tensors):
    tensors["left"][0] = 3


def of_no_class_below(tensors):
    tensors["left"][0] = -1


def as_numbers(tensors):
    return {name: values.astype(np.float32) for name, values in tensors.items()}


def one_domain_more(tensors):
    tensors["odd"] = tensors["left"]


def without_snapshots(tensors):
    return {name: values for name, values in tensors.items() if "step" not in name}


def stray_encoder(files):
    return hashed({**files, f"encoders/{OTHER}.safetensors": next(
        c for n, c in files.items() if n.startswith("encoders/"))})  # fmt: skip


def failed_with_scores(files):
    return with_record(files, lambda r: r.update(status="failed", reason="x"))


def no_chain_in_artifacts(fields):
    fields["artifacts"].update(stages=[], encoder_sha256=None)


def snapshot_score(**fields):
    return lambda f: with_record(f, lambda r: r["snapshots"][0]["scores"][1].update(fields))


def predicted(change, method="simclr"):
    return lambda files: with_predictions(files, change, method)


def snapshot_at(files, step, method="simclr", seed=0):
    """With the snapshot of a record, and its encoder, called those after another step."""
    name = record_name(files, method, seed)
    kept = json.loads(files[name])
    key, before = kept["artifacts"]["stages"][-1], kept["snapshots"][0]["step"]
    files = dict(files)
    moved = files.pop(f"encoders/{snapshot_key(key, before)}.safetensors")
    files[f"encoders/{snapshot_key(key, step)}.safetensors"] = moved
    return hashed(changed(files, name, lambda r: r["snapshots"][0].update(step=step)))


def snapshot_gone(files):
    kept = json.loads(files[record_name(files)])
    key = snapshot_key(kept["artifacts"]["stages"][-1], kept["snapshots"][0]["step"])
    return without(files, f"encoders/{key}.safetensors")


def with_no_snapshots(files):
    return hashed(
        changed(snapshot_gone(files), record_name(files), lambda r: r.update(snapshots=[]))
    )


LIES = {
    # files
    "an extra file": (lambda f: {**f, f"encoders/{OTHER}.safetensors": next(
        c for n, c in f.items() if n.startswith("enc"))}, "is not in manifest.json"),
    "a missing file": (lambda f: without(f, predictions_of(record_name(f))),
                       "is in manifest.json, and not in the bundle"),
    "a wrong hash": (fact(sha256=OTHER), "has another sha256 than manifest.json says"),
    "a wrong size": (fact(size=7), "has another size than manifest.json says"),
    "an edited score, and its old hash": (
        lambda f: changed(f, record_name(f), lambda r: r["scores"][1].update(accuracy=0.99)),
        "has another si"),
    "swapped predictions": (swapped, "has another sha256"),
    "swapped predictions, hashed": (lambda f: hashed(swapped(f)),
                                    "its predictions are others than it says"),
    "an encoder with a bit more": (
        lambda f: {n: c[:-1] + bytes([c[-1] ^ 1]) if n.startswith("enc") else c
                   for n, c in f.items()}, "has another sha256"),
    "an encoder that belongs to nothing": (stray_encoder, "belongs to no record"),
    # suite, board
    "another suite": (suite(name="other"), "name is \"other\", and the board's \"tiny\""),
    "fewer seeds": (suite(seeds=[0]), "seeds is .0., and the board's .0, 1."),
    "another split": (suite(split_seed=1), "split_seed is 1, and the board's 0"),
    "another budget": (suite(stage={"steps": 99, "batch_size": 12, "lr": 0.01}), "stage is "),
    "another dataset": (suite(dataset="digits"), "dataset is \"digits\""),
    "other shifts": (suite(shifts=["right > left"]), "shifts is .\"right > left\"."),
    "all shifts": (suite(shifts=["all"]), "shifts is .\"all\"."),
    "another rule": (suite(rule="last"), "rule is \"last\""),
    "more draws": (suite(tune={"draws": 9}), "tune is .*draws.: 9"),
    "another precision of the suite": (suite(precision="bf16"), "precision is \"bf16\""),
    "a method fewer in the suite": (
        lambda f: hashed(changed(f, "suite.json", lambda s: s["method"].pop())),
        "manifest.json names another suite, protocol or methods than suite.json"),
    "a method that the board has otherwise": (
        lambda f: hashed(changed(f, "suite.json", lambda s: s["method"][1].update(steps=99))),
        "method erm is another than the board's suite has under this name"),
    "another protocol of the manifest": (manifest(protocol="uda/2"), "names another suite, prot"),
    "another suite of the manifest": (manifest(suite="x"), "names another suite, protocol or"),
    "methods hidden in the manifest": (manifest(methods=["erm"]), "names another suite, protocol"),
    "a foreign fingerprint": (manifest(fingerprint=OTHER), "it is of data with fingerprint 000"),
    # cells
    "a missing seed": (missing_seed, "there is no record of simclr.* · left > right · seed 1"),
    "a missing method": (missing_method, "there is no record of erm · left > right · seed 0"),
    "a duplicate seed": (moved_seed, "are both of simclr.* seed 0"),
    "a seed that nobody asked for": (lambda f: moved_seed(f, 7, "e" * 64),
                                     "seed 7, which the suite does not ask for"),
    "a draw that nobody asked for": (record(draw=1), "draw 1, which the suite does not ask for"),
    "a renamed record": (renamed, "should be named simclr-temperature-0.2--left-right--0--"),
    "another shift": (record(shift="right > left"), "right > left · seed 0, which the suite"),
    "another method": (record(method="best"), "best · left > right · seed 0, which the suite"),
    "a copied encoder": (copied_encoder, "are of two seeds, and have the same encoder"),
    # what the record was made of
    "the record of another suite": (record(suite="other"), "its suite is \"other\", not \"tiny\""),
    "the record of another protocol": (record(protocol="uda/2"), "its protocol is \"uda/2\""),
    "the record of other data": (data(fingerprint=OTHER), "its data fingerprint is \"0000"),
    "another metric": (data(metric="macro_f1"), "its metric is \"macro_f1\", not \"accuracy\""),
    "another dataset of the record": (data(dataset="tiny(rows=400)x"), "its dataset is \"tiny"),
    "other sources": (data(sources=["odd"]), "its sources is .\"odd\"., not .\"left\"."),
    "other targets": (data(targets=["odd"]), "its targets is .\"odd\"., not .\"right\"."),
    "a sought split": (seeds(split=5), "its split seed is 5, not 0"),
    "a sought seed of draws": (seeds(hparams=5), "its seed of draws is 5, not 0"),
    "more steps": (stage(steps=400), "stage 0: its steps is 400, not 4"),
    "a larger batch": (stage(batch_size=256), "its batch_size is 256, not 12"),
    "another rate": (stage(lr=0.5), "its lr is 0.5, not 0.01"),
    "another decay": (stage(weight_decay=0.5), "its weight_decay is 0.5, not 0.0001"),
    "another warmup": (stage(warmup=0.5), "its warmup is 0.5, not 0.1"),
    "another optimizer": (stage(optimizer="sgd"), "its optimizer is \"sgd\", not \"adamw\""),
    "another sight": (stage(sees="all"), "its sees is \"all\", not \"source.target\""),
    "other domains seen": (stage("erm", domains=["left", "right"]), "it saw left, right, not left"),
    "another objective": (stage(objective="byol()"), "its objective is \"byol()"),
    "another option": (stage(objective="simclr(temperature=0.9, width=128)"), "its objective is "),
    "another augmentation": (stage(augmentation="noise(scale=0.1) | invert()"), "its augmentation"),
    "another encoder": (spec(encoder="small_cnn(width=64)"), "its encoder is .*, not \"small_cnn"),
    "another readout": (spec(readout="knn(k=1)"), "its readout is \"knn.k=1."),
    "another precision": (spec(precision="bf16"), "its precision is bf16, not fp32"),
    "labels of the target": (spec(labels="target"), "it was given labels of the target"),
    "a chain without a stage": (spec(chain=[]), "its chain has 0 stages, not 1"),
    "an encoder of no stage": (lambda f: with_record(f, no_chain_in_artifacts),
                               "it has 1 stages, and the files of 0|belongs to no record"),
    "an encoder without a hash": (artifacts(encoder_sha256=None), "a stage without a sha256"),
    "a wrong hash of the encoder": (artifacts(encoder_sha256=OTHER),
                                    "its encoder is another than it says"),
    "a wrong hash of predictions": (artifacts(predictions_sha256=OTHER),
                                    "its predictions are others than it says"),
    "no predictions": (lambda f: hashed(without(f, predictions_of(record_name(f)))),
                       "its predictions are missing"),
    "a cell that is no hash": (
        lambda f: with_record(f, lambda r: r.update(cell_id=r["cell_id"][:12])),
        "its cell_id is no sha256",
    ),
    "a failure that has scores": (failed_with_scores, "it is failed, and should have scores"),
    "a score without a cost": (record(cost=None), "it is scored, and should have scores, files a"),
    "no snapshots": (with_no_snapshots, "its snapshots are of steps .., not .2."),
    "a snapshot that is not said": (record(snapshots=[]), "encoders/.* belongs to no record"),
    "a snapshot of another step": (
        lambda f: snapshot_at(f, 3),
        "its snapshots are of steps .3., not .2."),
    # scores
    "an edited accuracy": (score(accuracy=0.99), "its accuracy on right is 0.99, and its predict"),
    "an accuracy a little higher": (
        lambda f: with_record(f, lambda r: r["scores"][1].update(
            accuracy=r["scores"][1]["accuracy"] + 1e-8)), "its accuracy on right is"),
    "an edited mean of classes": (score(per_class_mean=0.99), "its per_class_mean on right is"),
    "an edited value": (score(value=0.99), "its value on right is 0.99"),
    "an edited number of rows": (score(n=2400), "its n on right is 2400, and its predictions give"),
    "an edited source": (score(0, accuracy=0.5), "its accuracy on left is 0.5"),
    "an accuracy left out": (score(accuracy=None), "its accuracy on right is None"),
    "another role": (score(role="source"), "its scores are not of the domains of its shift"),
    "another domain": (score(domain="odd"), "its scores are not of the domains of its shift"),
    "a score fewer": (lambda f: with_record(f, lambda r: r["scores"].pop(0)),
                      "its scores are not of the domains of its shift"),
    "no score": (record(scores=[]), "it is scored, and should have scores"),
    "a group that there is not": (
        score(groups=[{"group": "x", "value": 1.0, "n": 24}]), "its groups on right are others"),
    "an edited snapshot": (snapshot_score(accuracy=0.99), "after step 2, its accuracy on right is"),
    "a prediction made right": (predicted(one_more_right), "on right is .*, and its predictions g"),
    "predictions on another domain": (predicted(renamed_domain), "its predictions are of .*odd"),
    "predictions on a domain more": (predicted(one_domain_more), "its predictions are of .*odd"),
    "predictions of the end alone": (predicted(without_snapshots), "its predictions are of "),
    "fewer predictions": (predicted(cut_to(9)), "there are 9 predictions on left, which has 24"),
    "a prediction of no class": (predicted(of_no_class), "a prediction on left is of no class"),
    "a prediction below": (predicted(of_no_class_below), "a prediction on left is of no class"),
    "numbers for classes": (predicted(as_numbers), "the predictions on left are float32"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_found_without_a_plugin(honest, away, name):
    make, reason = LIES[name]
    verdict = judged(tar_of(make(honest.files)), honest.board, away)
    assert (verdict.level, verdict.status) == ("claimed", 1)
    assert any(re.search(reason, text) for text in verdict.problems), verdict.problems


def group(number: int = 0, **fields):
    return lambda f: with_record(f, lambda r: r["scores"][1]["groups"][number].update(fields))


def nan(tensors):
    tensors["right"][0] = np.nan


def as_classes(tensors):
    return {name: values.astype(np.int32) for name, values in tensors.items()}


def nudged(tensors):
    tensors["right"] += np.linspace(0, 0.01, len(tensors["right"]), dtype=np.float32)


LIES_OF_GROUPS = {
    "a copied seed": (copied_seed, "are of two seeds, and have the same predictions"),
    "an edited group": (group(value=0.99), "on right, group one, is 0.99, and its"),
    "an edited number of a group": (group(n=7), "its groups on right are others than those of"),
    "another group": (group(group="other"), "its groups on right are others than those of the"),
    "a group fewer": (lambda f: with_record(f, lambda r: r["scores"][1]["groups"].pop()),
                      "its groups on right are others than those of the rows"),
    "an accuracy of numbers": (score(accuracy=0.5), "its accuracy on right is 0.5"),
    "the mean for the worst": (score(value=0.9), "its value on right is 0.9"),
    "predictions a little nearer": (predicted(nudged), "its value on right is"),
    "a prediction that is no number": (predicted(nan), "a prediction on right is not finite"),
    "classes for numbers": (predicted(as_classes), "the predictions on left are int32"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES_OF_GROUPS)
def test_a_lie_about_groups_or_numbers_is_found(numbers, away, name):
    make, reason = LIES_OF_GROUPS[name]
    verdict = judged(tar_of(make(numbers.files)), numbers.board, away)
    assert (verdict.level, verdict.status) == ("claimed", 1)
    assert any(re.search(reason, text) for text in verdict.problems), verdict.problems


def test_no_bit_can_be_flipped_and_no_end_cut_off(honest, away):
    """But for the text of the manifest, which says all the rest, and can be signed."""
    content, chance = honest.content, random.Random(0)
    (away / "honest.tar").write_bytes(content)
    with opened(away / "honest.tar") as bundle:
        manifest = bundle.places["manifest.json"]
    (away / "honest.tar").unlink()
    for place in (chance.randrange(len(content)) for _ in range(150)):
        if manifest.start <= place < manifest.start + manifest.size:
            continue
        flipped = bytearray(content)
        flipped[place] ^= 1 << chance.randrange(8)
        assert refused(bytes(flipped), honest.board, away), f"bit {place} was flipped"
    for _ in range(50):
        assert refused(content[: chance.randrange(len(content))], honest.board, away)


def refused(content: bytes, board: Board, folder: Path) -> bool:
    try:
        return judged(content, board, folder).status == 1
    except Malformed:
        return True


def forged(honest, change, seeds=(0, 1)) -> bytes:
    """Predictions of simclr that were made up, with scores that follow from them."""
    files = honest.files
    for seed in seeds:
        files = with_predictions(files, change, seed=seed)
        name = record_name(files, seed=seed)
        record = record_of(files[name])
        scores = rescored(record, load(files[predictions_of(name)]), honest.board.truth)
        said = [score.model_dump(mode="json") for score in scores]
        files = with_record(files, lambda r, said=said: r.update(scores=said), seed=seed)
    return tar_of(files)


def all_right(honest):
    truth = honest.board.truth.labels["right"]

    def change(tensors):
        tensors["left"][:], tensors["right"] = 0, truth.astype(np.int32)

    return change


def test_what_is_unlikely_is_a_flag_and_no_refusal(honest, away):
    verdict = judged(honest.content, honest.board, away)
    assert any("seeds have 0.3333" in text for text in verdict.flags["erm"])
    assert any("0.333 is not above chance, 0.333" in text for text in verdict.flags["erm"])
    assert "simclr(temperature=0.2)" not in verdict.flags
    record = recorded(honest.plan, ["erm"])[0]
    spec = record.spec.model_copy(update={"labels": "target"})
    ceiling = record.model_copy(update={"method": "ceiling", "spec": spec})
    board = replace(honest.board, records=(ceiling,))
    verdict = judged(forged(honest, all_right(honest)), board, away)
    assert verdict.level == "consistent", "labels are public, and predictions can be made up"
    said = "; ".join(verdict.flags["simclr(temperature=0.2)"])
    for words in ("1.000 is far above the source's 0.", "all of 2 seeds have 1.0000",
                  "1.000 is above the ceiling, 0.333"):  # fmt: skip
        assert words in said
    assert "flag: erm: left > right: 0.333 is not above chance" in verdict.text()


def test_a_larger_budget_than_the_boards_is_a_flag(honest, away):
    files = changed(honest.files, "suite.json", lambda s: s["method"][1].update(steps=99))
    board = replace(honest.board, suite=narrowed(honest.board.suite, ["simclr(temperature=0.2)"]))
    for seed in (0, 1):
        name = record_name(files, "erm", seed)
        files = changed(files, name, lambda r: r["spec"]["chain"][0].update(steps=99))
        files = snapshot_at(files, 49, "erm", seed)
        tensors = load(files[predictions_of(name)])
        tensors = {name.replace("step 2", "step 49"): v for name, v in tensors.items()}
        files = with_predictions(files, lambda _, tensors=tensors: tensors, "erm", seed)
    verdict = judged(tar_of(hashed(files)), board, away)
    assert verdict.level == "consistent", verdict.problems
    assert (
        "it draws 1,188 rows in training, 24.8 times those of the board's [stage]"
        in (verdict.flags["erm"])
    )


def test_a_failure_is_told_and_no_refusal(honest, away):
    name = record_name(honest.files, "erm", 1)
    files = without(honest.files, predictions_of(name))
    gone = {"status": "diverged", "reason": "loss is nan", "scores": [], "snapshots": [],
            "artifacts": None, "cost": None}  # fmt: skip
    kept = json.loads(files[name])
    key = kept["artifacts"]["stages"][0]
    step = kept["snapshots"][0]["step"]
    for one in (key, snapshot_key(key, step)):
        files = without(files, f"encoders/{one}.safetensors")
    verdict = judged(tar_of(hashed(changed(files, name, lambda r: r.update(gone)))), honest.board,
                     away)  # fmt: skip
    assert verdict.level == "consistent", verdict.problems
    assert "1 of 2 cells have no score" in verdict.flags["erm"]


def test_seeds_that_agree_by_chance_are_no_copies(honest, away):
    """Both always say one class, or make hardly a mistake."""

    def one_class(tensors):
        tensors["left"][:] = tensors["right"][:] = 1

    assert judged(forged(honest, one_class), honest.board, away).level == "consistent"

    def hardly_a_mistake(tensors):
        for domain in ("left", "right"):
            tensors[domain] = honest.board.truth.labels[domain].astype(np.int32)
            tensors[domain][:2] = (tensors[domain][:2] + 1) % 3

    content = forged(honest, hardly_a_mistake)
    assert judged(content, honest.board, away).level == "consistent"

    def a_mistake_more(tensors):
        hardly_a_mistake(tensors)
        tensors["left"][2] = (tensors["left"][2] + 1) % 3

    assert judged(forged(honest, a_mistake_more), honest.board, away).status == 1


def test_spellings_are_compared_by_what_they_say():
    assert alike("simclr(temperature=1)", "simclr(temperature=1.0, width=64)")
    assert alike("crop(scale=[0.2, 1])", "crop(scale=(0.2, 1.0))")
    assert not alike("simclr(width=3)", "simclr(temperature=0.1)")
    assert not alike("simclr", "byol()") and not alike("simclr", "import os; x")
    assert alike_in_turn("a | b(x=1)", "a(y=2) | b(x=1)") and not alike_in_turn("a | b", "b | a")
    assert not alike_in_turn("a", "a | b") and not alike_in_turn("a", "-" * 1500 + "1")


# --- what only plugins can tell


def random_weights(tensors):
    numbers = np.random.default_rng(0)
    for name, values in tensors.items():
        if name.startswith("encoder.") and values.dtype == np.float32:
            tensors[name] = abs(numbers.normal(size=values.shape)).astype(np.float32)


def not_a_number(tensors):
    for values in tensors.values():
        if values.dtype == np.float32:
            values[:] = np.nan


def other_shapes(tensors):
    name = next(name for name, values in tensors.items() if values.ndim == 4)
    tensors[name] = np.zeros((2, 2, 2, 2), np.float32)


def a_tensor_fewer(tensors):
    tensors.pop(next(name for name in tensors if name.endswith(".weight")))


MADE_UP = {
    "random weights": (lambda h: tar_of(with_encoder(h.files, random_weights)),
                       "of 24 predictions are others, more than 1"),
    "weights that are no numbers": (lambda h: tar_of(with_encoder(h.files, not_a_number)),
                                    "cannot be read off again: "),
    "an encoder of other shapes": (lambda h: tar_of(with_encoder(h.files, other_shapes)),
                                   "cannot be read off again: RuntimeError: Error.* in loading"),
    "an encoder without a tensor": (lambda h: tar_of(with_encoder(h.files, a_tensor_fewer, "erm")),
                                    "cannot be read off again: RuntimeError: Error.* in loading"),
    "predictions made up": (lambda h: forged(h, all_right(h)), "right: .* predictions are others"),
    "no encoders": (lambda h: tar_of(hashed({n: c for n, c in h.files.items() if "enc" not in n})),
                    "there is no encoder of erm · left > right · seed 0"),
    "a better validation of a snapshot": (
        lambda h: tar_of(
            with_record(h.files, lambda r: r["snapshots"][0]["validators"].update(source_val=1.5))
        ),
        "after step 2: its source_val is 1.5, and read off again"),
    "a snapshot without its encoder": (
        lambda h: tar_of(hashed(snapshot_gone(h.files))),
        "there is no encoder of simclr.*, after step 2"),
    "a better validation": (
        lambda h: tar_of(with_record(h.files, lambda r: r["validators"].update(source_val=1.5))),
        "its source_val is 1.5, and read off again"),
    "no augmentation, where one was asked for": (
        lambda h: tar_of(stage(augmentation="none")(h.files)), "did something else than its suite"),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE_UP)
def test_what_was_made_up_is_consistent_and_found_out_by_reading_it_off(honest, away, name):
    make, reason = MADE_UP[name]
    content = make(honest)
    verdict = judged(content, honest.board, away)
    assert (verdict.level, verdict.problems) == ("consistent", ())
    verdict = judged(content, honest.board, away, "re-probed", further(honest))
    assert (verdict.level, verdict.status) == ("consistent", 1)
    assert any(re.search(reason, text) for text in verdict.problems), verdict.problems


def test_reading_off_leaves_nothing_in_the_store(honest, away):
    store = honest.plan.store.root
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    judged(honest.content, honest.board, away, "re-probed", further(honest))
    assert before == {path: path.stat().st_mtime_ns for path in store.rglob("*")}


def test_other_source_of_a_plugin_is_a_flag(honest, away):
    def other(fields):
        for plugin in fields["plugins"]:
            plugin["digest"] = OTHER

    content = tar_of(with_record(honest.files, other))
    verdict = judged(content, honest.board, away, "re-probed", further(honest))
    assert verdict.level == "re-probed"
    assert (
        "plugin benchbench_contrastive has other source here than where it was run"
        in (verdict.flags["simclr(temperature=0.2)"])
    )


def test_few_moved_rows_are_rounding_and_many_or_one_sided_ones_are_not(honest):
    labels = torch.zeros(1000, dtype=torch.int64)
    truth = replace(honest.board.truth, labels={"left": labels.numpy()}, groups={})

    def told(claimed, again):
        return stray(claimed, again, claimed != again, truth, "left")

    again = torch.arange(1000) % 2  # half of the rows are right
    both = again.clone()
    both[:40] = 1 - both[:40]  # as many to the right class as away from it
    assert told(both, again) is None
    better = again.clone()
    better[1:60:2] = 0  # thirty more are right
    assert told(better, again) == "30 more of 1000 rows are right by the claim than again"
    assert (
        told(torch.where(torch.arange(1000) < 60, 1 - again, again), again)
        == "60 of 1000 predictions are others, more than 50"
    )
    groups = np.where(np.arange(1000) < 20, 0, 1)
    grouped = replace(truth, groups={"left": groups})
    worst = again.clone()
    worst[1:20:2] = 0  # ten more of the twenty rows of a group, one of a hundred of all
    assert told(worst, again) is None
    assert stray(worst, again, worst != again, grouped, "left") == (
        "10 more of 20 rows are right by the claim than again"
    )


def test_what_is_not_here_is_told_and_nothing_is_built(honest, tmp_path):
    def unknown(fields):
        fields["plugins"][0].update(name="brilliant", used=["objective brilliant"])

    plan = honest.plan

    def made(content, catalog=plan.catalog):
        (tmp_path / "x.tar").write_bytes(content)
        with opened(tmp_path / "x.tar") as bundle:
            told = submission_of(bundle)
            return plan_for(told, catalog, tmp_path, plan.store, "cpu", lambda done, n: None)

    reason = r"plugin brilliant \(benchbench-shift .*\), which offers objective brilliant, is not "
    with pytest.raises(BadInput, match=reason + "installed; install it, or"):
        made(tar_of(with_record(honest.files, unknown)))
    with pytest.raises(BadInput, match="the data here are others than those of x.tar"):
        made(tar_of(suite(dataset="tiny(seed=1)")(honest.files)))
    assert made(honest.content).pack.fingerprint == plan.pack.fingerprint


@pytest.mark.slow
def test_an_honest_bundle_is_reproduced(tmp_path_factory, away):
    """Of a method that has learnt what there is to learn: every seed reads all that there is."""
    learnt = SUITE.replace("steps = 4", "steps = 60").replace("snapshots = 2\n", "")
    learnt = learnt.replace('[[method]]\nchain = "simclr(temperature=0.2)"\n', "")
    sure = once(learnt, tmp_path_factory.getbasetemp())
    verdict = judged(sure.content, sure.board, away, "reproduced", further(sure))
    assert (verdict.level, verdict.problems) == ("reproduced", ())
    assert any("erm: trained with seed 2 it has 1." in text for text in verdict.notes)


@pytest.mark.slow
def test_seeds_that_differ_much_reproduce_nothing(honest, away):
    verdict = judged(honest.content, honest.board, away, "reproduced", further(honest))
    assert verdict.level == "re-probed"
    assert any(re.match(r"simclr.* wide, which tells too little", t) for t in verdict.problems)


def test_a_seed_that_was_submitted_reproduces_nothing(honest, away):
    again = {
        "re-probed": lambda s: [],
        "reproduced": lambda s: reproduced(s, honest.plan, 1, silent),
    }
    with pytest.raises(BadInput, match="seed 1 cannot tell whether seeds 0, 1 can be reproduced"):
        judged(honest.content, honest.board, away, "reproduced", again)


def test_a_seed_more_lies_in_its_interval_as_often_as_said():
    values = [0.5, 0.6, 0.64]
    low, high = interval(values)
    half = t.ppf(0.975, 2) * stdev(values) * (1 + 1 / 3) ** 0.5
    assert (low, high) == pytest.approx((mean(values) - half, mean(values) + half))
    assert interval([0.5, 0.5]) == pytest.approx((0.49, 0.51))
    drawn = np.random.default_rng(0).normal(0.5, 0.1, (2000, 4))
    inside = [low <= row[3] <= high for row in drawn for low, high in [interval(row[:3].tolist())]]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)


def test_what_was_trained_again_is_compared():
    (inside,) = compared("erm", [0.5, 0.51, 0.52], [0.5], 3)
    assert inside.kind == "note"
    (outside,) = compared("erm", [0.5, 0.501, 0.502], [0.6], 3)
    assert outside.kind == "problem"
    assert outside.text.startswith("erm: trained with seed 3 it has 0.6000, and one seed more than")
    (none,) = compared("erm", [0.5, 0.51], [], 3)
    assert (none.kind, none.text) == ("problem", "erm, trained with seed 3, has no score")
    (few,) = compared("erm", [], [0.5], 3)
    assert (few.kind, few.text) == ("problem", "erm has a seed that lacks a score")
    (wide,) = compared("erm", [0.2, 0.5, 0.9], [0.5], 3)
    assert wide.kind == "problem" and "tells too little to reproduce anything" in wide.text


# --- the command


@pytest.fixture
def verify(honest, tmp_path):
    """Runs the command; returns its status, standard output and error."""

    def invoke(*words: str, content: bytes | None = None):
        (tmp_path / "x.tar").write_bytes(honest.content if content is None else content)
        board = [] if "--board" in words else ["--board", str(honest.board.folder)]
        result = CliRunner().invoke(main, ["verify", str(tmp_path / "x.tar"), *board, *words])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return invoke


def test_the_command_tells_by_its_status(honest, verify):
    status, out, _ = verify()
    assert status == 0
    assert out.startswith(
        "accepted: asked for consistent, reached consistent\nmethods: simclr(temp"
    )
    status, out, _ = verify(content=tar_of(missing_seed(honest.files)))
    assert status == 1
    assert "refused: asked for consistent, reached claimed" in out
    assert "problem: there is no record of simclr(temperature=0.2) · left > right · seed 1" in out
    status, out, _ = verify(content=b"words")
    assert (status, out) == (
        2, "malformed: asked for consistent, reached nothing\nproblem: it is no tar file\n"
    )  # fmt: skip
    status, out, _ = verify("--json", content=b"words")
    assert (status, json.loads(out)["level"], json.loads(out)["problems"]) == (
        2, None, ["it is no tar file"]
    )  # fmt: skip
    told = json.loads(verify("--json")[1])
    assert (told["level"], told["asked"], told["problems"]) == ("consistent", "consistent", [])
    assert told["flags"]["erm"]


def test_many_problems_are_counted(honest, verify):
    files = {name: content[::-1] if name.startswith("enc") else content
             for name, content in honest.files.items()}  # fmt: skip
    assert verify(content=tar_of({**files}))[0] == 2, "a header that is none"
    many = {f"encoders/{n:064}.safetensors": honest.files[next(
        x for x in honest.files if x.startswith("enc"))] for n in range(25)}  # fmt: skip
    status, out, _ = verify(content=tar_of({**honest.files, **many}))
    assert status == 1 and out.endswith("and 5 problems more\n")


def test_what_a_check_needs_and_is_not_there_is_told(honest, verify, tmp_path):
    (tmp_path / "board").mkdir()
    status, _, err = verify("--board", str(tmp_path / "board"))
    assert status == 2 and "no suite or file" in err
    shutil.copy(honest.board.folder / "suite.toml", tmp_path / "board")
    status, _, err = verify("--board", str(tmp_path / "board"))
    assert status == 2 and "truth.safetensors cannot be read: No such file" in err
    result = CliRunner().invoke(main, ["verify", str(tmp_path / "x.tar")])
    assert result.exit_code == 2
    assert "level consistent needs a board to compare with: --board DIR" in result.stderr
    claimed = ["verify", str(tmp_path / "x.tar"), "--level", "claimed"]
    result = CliRunner().invoke(main, claimed)
    assert result.exit_code == 0 and "asked for claimed, reached claimed" in result.stdout
    status, _, err = verify("--level", "re-probed", "--store", str(tmp_path / "store"))
    assert status == 2 and "is not installed; install it, or verify at level consistent" in err


def test_no_plugin_is_loaded_before_it_is_asked_for(honest, tmp_path):
    """In a process of its own, where nothing has loaded one."""
    (tmp_path / "x.tar").write_bytes(honest.content)
    script = """
import sys
import benchbench.extension.catalog
def never(*wanted):
    raise AssertionError("plugins were loaded")
benchbench.extension.catalog.load = benchbench.extension.catalog.module_of = never
import pickle, torch
torch.load = pickle.load = pickle.loads = never
from benchbench.cli import main
main(standalone_mode=False, args=sys.argv[1:])
"""
    words = ["verify", str(tmp_path / "x.tar"), "--board", str(honest.board.folder)]
    for level in ("claimed", "consistent"):
        code = script.replace("main(", "try:\n    main(") + (
            "except SystemExit as end:\n    assert end.code == 0, end.code\n"
            "print([m for m in sys.modules if m.startswith('benchbench_')])\n"
        )
        done = subprocess.run([sys.executable, "-c", code, *words, "--level", level],
                              capture_output=True, text=True, cwd=tmp_path)  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert f"reached {level}" in done.stdout and done.stdout.endswith("[]\n")
    assert [p.name for p in tmp_path.iterdir()] == ["x.tar"]


# --- signatures


@pytest.fixture
def keys(tmp_path):
    """Two keys, and a file that allows the first."""
    if not shutil.which("ssh-keygen"):
        pytest.skip("ssh-keygen, which signs, is not on this machine")
    folder = tmp_path / "keys"
    folder.mkdir()
    for name in ("known", "unknown"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f",
                        folder / name], check=True)  # fmt: skip
    public = (folder / "known.pub").read_text()
    (folder / "allowed").write_text(f'a@example.org namespaces="benchbench-bundle" {public}')
    return folder


def signed_by(honest, key: Path, out: Path) -> bytes:
    plan, names = honest.plan, ["simclr(temperature=0.2)", "erm"]
    chosen, records = narrowed(plan.suite, names), recorded(plan, names)
    write_bundle(out, chosen, records, plan.store, Credits(submitter="A"), key=key)
    return out.read_bytes()


def test_a_signature_says_who_and_an_edited_or_unknown_one_is_refused(
    honest, verify, keys, tmp_path
):
    content = signed_by(honest, keys / "known", tmp_path / "y.tar")
    allowed = ("--allowed-signers", str(keys / "allowed"))
    status, out, _ = verify(*allowed, content=content)
    assert status == 0 and "\nsigned by a@example.org\n" in out
    assert "its signature was not checked" in verify(content=content)[1]
    assert "it is not signed" in verify(*allowed)[1]

    (tmp_path / "y.tar").write_bytes(content)
    with opened(tmp_path / "y.tar") as bundle:
        files = {name: bundle.read(name) for name in bundle.places}
    edited = changed(files, "manifest.json", lambda m: m.update(submitter="B"))
    status, out, _ = verify(*allowed, content=tar_of(edited))
    assert status == 1 and "its signature is not one of a@example.org on this manifest" in out
    broken = {**files, "manifest.json.sig": files["manifest.json.sig"].replace(b"U", b"V")}
    assert verify(*allowed, content=tar_of(broken))[0] == 1
    content = signed_by(honest, keys / "unknown", tmp_path / "y.tar")
    status, out, _ = verify(*allowed, content=content)
    assert status == 1 and "it is signed by nobody whom" in out
    (tmp_path / "no-key").write_text("words")
    with pytest.raises(BadInput, match="--sign .*no-key: ssh-keygen does not sign"):
        signed_by(honest, tmp_path / "no-key", tmp_path / "z.tar")
    assert not (tmp_path / "z.tar").exists()


# --- what a board takes in


@pytest.fixture
def board(honest, tmp_path) -> Path:
    """A board that has no records yet."""
    folder = tmp_path / "board"
    folder.mkdir()
    for name in ("suite.toml", "truth.safetensors"):
        shutil.copy(honest.board.folder / name, folder)
    return folder


def test_what_is_accepted_is_taken_in_once_and_keeps_its_highest_level(honest, verify, board):
    into = ("--board", str(board), "--into", str(board))
    status, out, err = verify(*into)
    assert (status, err) == (0, f"{board}: 4 records are new\n")
    levels = json.loads((board / "levels.json").read_text())
    assert levels.keys() == {"erm", "simclr(temperature=0.2)"}
    assert levels["erm"]["level"] == "consistent" and levels["erm"]["submitter"] == "A. Person"
    assert levels["erm"]["paper"] == "https://example.org/paper" and levels["erm"]["flags"]
    assert levels["simclr(temperature=0.2)"]["flags"] == []
    source = of_folder(board)
    assert len(source.records) == 4 and source.levels["erm"].level == "consistent"
    assert all(source.predictions(record) for record in source.records)
    for record in recorded(honest.plan, ["erm"]):
        assert (board / "records" / record.file_name).read_text() == record.text()
    before = {path: path.stat().st_mtime_ns for path in (board / "records").iterdir()}
    assert len(before) == 8
    assert verify(*into)[2] == f"{board}: 0 records are new\n"
    assert before == {path: path.stat().st_mtime_ns for path in (board / "records").iterdir()}
    levels["erm"]["level"] = "reproduced"
    (board / "levels.json").write_text(json.dumps(levels))
    verify(*into)
    assert json.loads((board / "levels.json").read_text())["erm"]["level"] == "reproduced"


def test_what_is_refused_or_there_already_changes_nothing(honest, verify, board):
    into = ("--board", str(board), "--into", str(board))
    assert verify(*into, content=tar_of(missing_seed(honest.files)))[0] == 1
    assert verify(*into, content=b"words")[0] == 2
    status, _, err = verify(*into, "--level", "claimed")
    assert status == 2 and "only what is accepted at level consistent or above is taken in" in err
    assert sorted(p.name for p in board.iterdir()) == ["suite.toml", "truth.safetensors"]

    (board / "records").mkdir()
    record = recorded(honest.plan, ["erm"])[0]
    (board / "records" / record.file_name).write_text(record.text().replace("scored", "scored "))
    (board / "records" / record.file_name).write_text(
        record.model_copy(update={"environment": record.environment.model_copy(
            update={"threads": 99})}).text())  # fmt: skip
    status, _, err = verify(*into)
    assert status == 2 and "is there already, with other content; nothing was taken in" in err
    (board / "records" / record.file_name).unlink()
    other = record.model_copy(update={"cell_id": "f" * 64})
    (board / "records" / other.file_name).write_text(other.text())
    status, _, err = verify(*into)
    assert status == 2 and "has other records of erm; give the method another name" in err
    assert [r.cell_id for r in read_records(board / "records")] == ["f" * 64]
    assert not (board / "levels.json").exists()


def test_a_disk_that_ends_leaves_nothing_half_taken_in(honest, board, tmp_path, monkeypatch):
    (tmp_path / "x.tar").write_bytes(honest.content)
    real, count = Path.hardlink_to, iter(range(5))

    def full(self, target):
        if next(count, None) is None:
            raise OSError(28, "No space left on device")
        real(self, target)

    monkeypatch.setattr(Path, "hardlink_to", full)
    with opened(tmp_path / "x.tar") as bundle:
        submission = submission_of(bundle)
        verdict = verdict_on(submission, Board.read(board), "consistent")
        with pytest.raises(BadInput, match="cannot be written: No space left on device"):
            take_in(submission, verdict, board)
    assert not [*(board / "records").iterdir()] and not (board / "levels.json").exists()


@pytest.mark.parametrize("unit", [1e-8, 1.0, 1e8])
def test_validators_of_numbers_are_compared_in_the_units_of_their_labels(unit):
    """Minus a squared error of a thousandth of the labels' variance, whatever their unit."""
    again = Validators(source_val=-1e-3 * unit, target_val=-0.5 * unit)
    near = Validators(source_val=-2e-3 * unit, target_val=-0.49 * unit)
    raised = Validators(source_val=-1e-3 * unit, target_val=-0.4 * unit)
    assert not [*other_validators("here", near, again, unit)]
    (found,) = other_validators("here", raised, again, unit)
    assert "target_val" in found.text
