"""Encoders and views of texts, beside plain loops and transformers itself."""

import hashlib
import random
import shutil
import sys

import pytest
import torch
from audiences import quiet
from tiny import Text, make_catalog, make_plan, smoke
from trees import WILDS

from benchbench import PADDING, BadInput, Task
from benchbench.data.dataset_loading import described
from benchbench.data.tokens import tokenized
from benchbench.execution.cell import execute
from benchbench.extension.conformance import Check
from benchbench.extension.conformance.all_kinds import builds
from benchbench.extension.conformance.fixtures import Subject
from benchbench_text.encoders import hugging_face, transformer
from benchbench_text.views import moved_up, span, synonyms, token_dropout

WORDS = ("[UNK]", "[MASK]", "good", "great", "fine", "bad", "poor", "xylophone", "the", "of")
TASK = Task((16,), 3, 2, WORDS)


SUITE = Text("""
name = "texts"
dataset = "amazon(length=12)"
shifts = ["train > test"]
seeds = [0]
encoder = "transformer(width=8, heads=2)"
precision = "fp32"
readout = "prototype"
stage = { steps = 2, batch_size = 8, lr = 0.01, augmentation = "span", weak = "token_dropout" }
""")


def batch(rows=400, length=16, seed=0):
    rng = random.Random(seed)
    lines = []
    for _ in range(rows):
        words = [rng.randrange(len(WORDS)) for _ in range(rng.randint(1, length))]
        lines.append(words + [PADDING] * (length - len(words)))
    return torch.tensor(lines)


def plain(row):
    return [token for token in row.tolist() if token != PADDING]


def is_part_of(short, long):
    """In the same order, perhaps with gaps."""
    rest = iter(long)
    return all(token in rest for token in short)


def test_dropped_tokens_leave_the_others_in_order_and_as_often_as_p_says():
    texts = batch()
    torch.manual_seed(0)
    seen = token_dropout(TASK, p=0.3)(texts)
    assert (seen[:, 0] != PADDING).all()  # one stays
    for before, after in zip(texts, seen, strict=True):
        assert is_part_of(plain(after), plain(before))
        assert after.tolist() == plain(after) + [PADDING] * (16 - len(plain(after)))
    long = (texts != PADDING).sum(1) > 8
    kept = (seen[long] != PADDING).sum() / (texts[long] != PADDING).sum()
    assert kept.item() == pytest.approx(0.7, abs=0.02)
    lone = torch.tensor([[5] + [PADDING] * 15] * 200)
    assert torch.equal(token_dropout(TASK, p=0.9)(lone), lone)
    empty = torch.full((2, 16), PADDING)
    assert torch.equal(token_dropout(TASK)(empty), empty)


def test_a_span_is_one_piece_of_a_share_of_the_tokens():
    texts = batch()
    torch.manual_seed(0)
    shares, starts = [], set()
    for before, after in zip(texts, span(TASK, share=(0.4, 0.8))(texts), strict=True):
        long, short = plain(before), plain(after)
        places = [s for s in range(len(long)) if long[s : s + len(short)] == short]
        assert places and short
        if len(long) == 16:
            shares.append(len(short) / 16)
            starts.add(places[0])
    assert 0.4 <= min(shares) <= 0.45 and 0.75 <= max(shares) <= 0.8125 and len(starts) > 5


def test_words_become_others_of_their_line_as_often_as_p_says(tmp_path):
    texts = batch()
    torch.manual_seed(0)
    seen = synonyms(TASK, p=0.5)(texts)
    lines = [{2, 3, 4}, {5, 6}]
    changed = {2: [], 5: []}
    for before, after in zip(texts.flatten().tolist(), seen.flatten().tolist(), strict=True):
        line = next((line for line in lines if before in line), {before})
        assert after in line
        if before in changed:
            changed[before].append(after != before)
    for found in changed.values():
        assert sum(found) / len(found) == pytest.approx(0.5, abs=0.06)
    file = tmp_path / "mine.txt"
    file.write_text("Xylophone the\nnowhere to be found\n")
    swapped = synonyms(TASK, p=0.999, file=str(file))(torch.tensor([[7, 8, 2, PADDING]]))
    assert swapped.tolist() == [[8, 7, 2, PADDING]]
    with pytest.raises(BadInput, match=r"synonyms: .*none.txt cannot be read"):
        synonyms(TASK, file=str(tmp_path / "none.txt"))
    with pytest.raises(BadInput, match="has no two words of one line"):
        synonyms(Task((4,), 2, 2, ("xylophone", "good")))


def test_what_a_file_or_a_folder_holds_is_a_part_of_the_spelling(tmp_path):
    file, catalog = tmp_path / "mine.txt", make_catalog()
    file.write_text("good fine\n")
    first = catalog.resolve("augmentation", f"synonyms(file='{file}')").text
    assert hashlib.sha256(b"good fine\n").hexdigest() in first
    file.write_text("good bad !\n")
    other = catalog.resolve("augmentation", f"synonyms(file='{file}')").text
    assert other != first
    with pytest.raises(BadInput, match=r"synonyms: .*mine.txt is not the file of this sha256"):
        catalog.resolve("augmentation", first)
    spelled = f"hugging_face(pretrained='{tmp_path}')"
    folder = catalog.resolve("encoder", spelled).text
    (tmp_path / "config.json").write_text("{}")
    assert catalog.resolve("encoder", spelled).text != folder
    with pytest.raises(BadInput, match="there is no file 'a/name' here whose sha256"):
        catalog.resolve("encoder", "hugging_face(pretrained='a/name', sha256='abc')")
    assert "sha256=''" in catalog.resolve("encoder", "hugging_face(pretrained='a/name')").text


def test_what_stays_moves_up():
    tokens = torch.tensor([[3, 4, 5, PADDING], [6, 7, 8, 9]])
    stays = torch.tensor([[False, True, True, False], [True, False, False, True]])
    assert moved_up(tokens, stays).tolist() == [[4, 5, -1, -1], [6, 9, -1, -1]]


@pytest.mark.parametrize("make", [transformer, hugging_face])
def test_padding_counts_for_nothing_and_every_word_does(make):
    torch.manual_seed(0)
    encoder = make(TASK, width=16, heads=2).eval()
    texts = batch(12)[:, :9]
    with torch.no_grad():
        short, long = encoder(texts), encoder(torch.nn.functional.pad(texts, (0, 7), value=-1))
        assert torch.allclose(short, long, atol=1e-5)
        empty = encoder(torch.full((1, 16), PADDING))
        assert empty.isfinite().all()
        for place in range(3):
            other = texts.clone()
            other[:, place] = (other[:, place] + 1) % len(WORDS)
            moved = (encoder(other) - short).abs().amax(1) > 1e-4
            assert moved[texts[:, place] != PADDING].all()


def test_dropout_alone_makes_two_views_and_evaluation_has_none():
    torch.manual_seed(0)
    encoder, texts = transformer(TASK, width=16), batch(6)
    assert not torch.allclose(encoder.train()(texts), encoder(texts), atol=1e-3)
    encoder.eval()
    assert torch.equal(encoder(texts), encoder(texts))


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "roberta"])
def test_an_architecture_has_the_size_asked_for(architecture):
    encoder = hugging_face(TASK, architecture=architecture, width=16, depth=3, heads=2)
    assert encoder.num_features == 16 and encoder(batch(3)).shape == (3, 16)
    config = encoder.model.config
    assert (config.num_hidden_layers, config.num_attention_heads) == (3, 2)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A tiny BERT and its tokenizer, as Hugging Face's libraries save them."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("bert")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz0123456789"]
    pieces += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789"]
    pieces += ["good", "great", "says", "indeed", ":", ",", ";", "."]
    model = Tokenizer(
        models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]")
    )
    model.normalizer, model.pre_tokenizer = (
        normalizers.BertNormalizer(),
        pre_tokenizers.BertPreTokenizer(),
    )
    model.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    model.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(pieces), hidden_size=16, num_hidden_layers=2,
                        num_attention_heads=2, intermediate_size=32,
                        max_position_embeddings=24)  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


def test_a_pretrained_model_reads_texts_as_transformers_would(pretrained, tmp_path):
    from transformers import AutoModel, PreTrainedTokenizerFast

    lines = ["Great: good, indeed.", "a1", "word after word after word after word"]
    tokens, vocabulary = tokenized(lines, length=20, tokenizer=pretrained / "tokenizer.json")
    task = Task(tuple(tokens.shape[1:]), 2, 2, vocabulary)
    encoder = hugging_face(task, pretrained=str(pretrained)).eval()
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(pretrained / "tokenizer.json"),
                                     pad_token="[PAD]")  # fmt: skip
    asked = theirs(lines, padding=True, truncation=True, max_length=20, return_tensors="pt")
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(pretrained).eval()(**asked).last_hidden_state
        mask = asked["attention_mask"][:, :, None]
        wanted = (hidden * mask).sum(1) / mask.sum(1)
        assert torch.allclose(encoder(tokens.long()), wanted, atol=1e-5)
    _, words = tokenized(lines, length=20, learned_from=lines)
    with pytest.raises(BadInput, match="the dataset's tokens are not those of"):
        hugging_face(Task((8,), 2, 2, words), pretrained=str(pretrained))
    half = tmp_path / "half"
    AutoModel.from_pretrained(pretrained).half().save_pretrained(half)
    shutil.copy(pretrained / "tokenizer.json", half)
    weights = hugging_face(task, pretrained=str(half)).parameters()
    assert {weight.dtype for weight in weights} == {torch.float32}
    with pytest.raises(BadInput, match=r"reads 24 tokens, and the dataset's texts have 30"):
        hugging_face(Task((30,), 2, 2, vocabulary), pretrained=str(pretrained))


def test_reviews_through_a_pretrained_model(pretrained, tmp_path):
    WILDS["amazon"](tmp_path)
    (tmp_path / "bert").symlink_to(pretrained)
    text = "amazon(length=20, tokenizer='bert/tokenizer.json')"
    data = described(make_catalog().resolve("dataset", text), tmp_path)
    assert data.vocabulary[data.inputs[0, 0]] == "[CLS]"
    assert data.sources[-1] == tmp_path / "bert/tokenizer.json"
    folder = tmp_path / "runs"
    folder.mkdir()
    record = smoke(
        *(text, "train > test", tmp_path, folder),
        encoder=f"hugging_face(pretrained='{pretrained}')",
        augmentation="span",
    )
    assert record.value("target") is not None and record.data.metric == "tenth_percentile"
    with pytest.raises(BadInput, match="amazon needs gone.json below"):
        described(make_catalog().resolve("dataset", "amazon(tokenizer='gone.json')"), tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("transformer(width=8, heads=2)", "small_cnn(width=4)"),
         "encoder small_cnn is for images, and the data are texts; for them there is hugging_face"),
        (('"span"', '"horizontal_flip"'),
         "augmentation horizontal_flip is for images, .* there is span, synonyms, token_dropout"),
        (('"simclr"', '"mixup"'), "mixup is for images, and the data are texts"),
    ],
)  # fmt: skip
def test_what_is_for_images_is_refused_for_texts(tmp_path, change, sentence):
    WILDS["amazon"](tmp_path)
    text = SUITE + '[[method]]\nchain = "simclr"\n'
    plan = make_plan(text.replace(*change), tmp_path / "store", tmp_path)
    with pytest.raises(BadInput, match=sentence):
        plan.check(plan.cells[0])


@pytest.mark.parametrize(
    ("kind", "spelled", "sentence"),
    [
        (
            "encoder",
            "transformer(width=10, heads=4)",
            "width = 10 should be a multiple of heads = 4",
        ),
        ("encoder", "hugging_face(architecture='berd')", "transformers has no architecture 'berd'"),
        ("augmentation", "token_dropout(p=1.5)", "token_dropout: p = 1.5 should be within"),
        ("augmentation", "span(share=(0.9, 0.2))", r"span: share = \(0.9, 0.2\) should be within"),
    ],
)
def test_options_without_meaning_are_refused(kind, spelled, sentence):
    with pytest.raises(BadInput, match=sentence):
        make_catalog().resolve(kind, spelled).build(TASK)


def test_without_transformers_it_is_refused_in_a_sentence_and_skipped_by_the_kit(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "transformers", None)
    entry = make_catalog().resolve("encoder", "hugging_face").entry
    with pytest.raises(BadInput, match=r"needs transformers: pip install 'benchbench-shift\[text"):
        entry.factory(TASK)
    outcome = Check(Subject(entry, tmp_path, tmp_path), builds).run()
    assert outcome.status == "skipped" and "its package is not here" in outcome.message


@pytest.mark.slow
def test_every_objective_that_is_for_texts_trains_on_them(tmp_path):
    WILDS["amazon"](tmp_path)
    catalog = make_catalog()
    options = {"swav": "swav(small=0)", "dino": "dino(small=0)"}
    names = [name for kind, name in catalog.entries if kind == "objective" and name != "unstable"]
    methods = [f'[[method]]\nname = "{n}"\nchain = "{options.get(n, n)}"\n' for n in names]
    plan = make_plan(SUITE + "".join(methods), tmp_path / "store", tmp_path)
    refused = set()
    for cell in plan.cells:
        try:
            plan.check(cell)
        except BadInput as error:
            refused.add(cell.method.name)
            assert " is for " in str(error), error
            continue
        record = execute(cell, plan, quiet)
        assert record.status == "scored" and record.value("target") is not None
    assert refused == {"dirt_t", "mae", "mixup", "rotnet", "vada"}


@pytest.mark.gpu
@pytest.mark.parametrize("chain", ["simclr", "dann", "erm > fixmatch"])
@pytest.mark.parametrize("encoder", ["transformer(width=8, heads=2)", "hugging_face(width=16)"])
def test_texts_train_on_a_gpu(tmp_path, chain, encoder):
    WILDS["amazon"](tmp_path)
    text = SUITE.replace("fp32", "bf16").replace("transformer(width=8, heads=2)", encoder)
    text += f'[[method]]\nchain = "{chain}"\n'
    plan = make_plan(text, tmp_path / "store", tmp_path, device="cuda")
    plan.check(plan.cells[0])
    record = execute(plan.cells[0], plan, quiet)
    assert record.status == "scored" and record.spec.precision == "bf16"
