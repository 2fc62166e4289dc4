"""Encoders of texts. Their dropout alone makes two views of one text, as in SimCSE."""

from pathlib import Path

import torch
from torch import Tensor, nn

from benchbench import PADDING, BadInput, Task, for_text, reads_file


class Transformer(nn.Module):
    """Pre-norm blocks over words and their places; features are the mean over a text's tokens."""

    def __init__(self, task: Task, width: int, depth: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.num_features = width
        self.words = nn.Embedding(len(task.vocabulary), width)
        self.places = nn.Parameter(0.02 * torch.randn(task.input_shape[0] + 1, width))
        self.dropout = nn.Dropout(dropout)
        block = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True
        )
        norm = nn.LayerNorm(width)
        self.blocks = nn.TransformerEncoder(block, depth, norm, enable_nested_tensor=False)
        nn.init.normal_(self.words.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        kept = nn.functional.pad(tokens != PADDING, (1, 0), value=True)  # the first place: no word
        words = nn.functional.pad(self.words(tokens.clamp(min=0)), (0, 0, 1, 0))
        x = self.dropout(words + self.places[: kept.shape[1]])
        return mean_of_tokens(self.blocks(x, src_key_padding_mask=~kept), kept)


@for_text
def transformer(
    task: Task, *, width: int = 128, depth: int = 2, heads: int = 2, dropout: float = 0.1
) -> nn.Module:
    """A small transformer (Vaswani et al. 2017), by default of the size of BERT-tiny.

    Pre-norm, learned places, the mean over tokens. For SimCSE's views (Gao et al. 2021,
    arXiv:2104.08821) train it with simclr(temperature=0.05) and augmentation "none".
    """
    if min(width, depth, heads) < 1 or width % heads or not 0 <= dropout < 1:
        raise BadInput(
            f"transformer: width = {width} should be a multiple of heads = {heads}, depth = "
            f"{depth} at least 1, and dropout = {dropout} in [0, 1)"
        )
    return Transformer(task, width, depth, heads, dropout)


class HuggingFace(nn.Module):
    """A model of transformers; features are the mean of its last layer over a text's tokens."""

    def __init__(self, model: nn.Module, first: int) -> None:
        super().__init__()
        self.model, self.first = model, first  # its number of the dataset's token 0
        self.padding = model.config.pad_token_id or 0
        self.num_features = int(model.config.hidden_size)
        if getattr(model, "pooler", None) is not None:
            model.pooler = None  # a head that nothing reads

    def forward(self, tokens: Tensor) -> Tensor:
        kept = tokens != PADDING
        kept[:, 0] = True  # an empty text would have nothing to attend to
        words = (tokens + self.first).masked_fill(tokens == PADDING, self.padding)
        found = self.model(input_ids=words, attention_mask=kept.long())
        return mean_of_tokens(found.last_hidden_state, kept)


@for_text
@reads_file("pretrained")
def hugging_face(
    task: Task,
    *,
    pretrained: str = "",
    sha256: str = "",
    architecture: str = "bert",
    width: int = 128,
    depth: int = 2,
    heads: int = 2,
) -> nn.Module:
    """Any encoder of Hugging Face's transformers (extra `text`), the mean of its last layer.

    ``pretrained`` is a folder, whose ``sha256`` the record holds, or a name of their hub; the
    dataset must be tokenised by its tokenizer.json. Without it, random weights of an
    ``architecture`` such as bert, distilbert or roberta, and of this size.
    """
    try:
        import transformers
    except ImportError as error:
        raise BadInput(
            "hugging_face needs transformers: pip install 'benchbench-shift[text]'"
        ) from error
    length, words = task.input_shape[0], len(task.vocabulary)
    if pretrained:
        known = vocabulary_of(pretrained)
        if any(known.get(word) != n for n, word in enumerate(task.vocabulary) if word):
            raise BadInput(
                f"hugging_face: the dataset's tokens are not those of {pretrained}; give the "
                'dataset its tokenizer.json, as in tokenizer="…"'
            )
        model = transformers.AutoModel.from_pretrained(pretrained).float()
        places = model.config.max_position_embeddings
        if places < length:
            raise BadInput(
                f"hugging_face: {pretrained} reads {places} tokens, and the dataset's texts have "
                f"{length}; set the dataset's length to {places}"
            )
        return HuggingFace(model, first=0)
    if min(width, depth, heads) < 1 or width % heads:
        raise BadInput(f"hugging_face: width = {width} should be a multiple of heads = {heads}")
    try:
        config = transformers.AutoConfig.for_model(architecture)
    except ValueError:
        raise BadInput(f"hugging_face: transformers has no architecture {architecture!r}") from None
    config.update(
        {
            "vocab_size": words + 1,  # the first is what pads
            "pad_token_id": 0,
            "hidden_size": width,
            "num_hidden_layers": depth,
            "num_attention_heads": heads,
            "intermediate_size": 4 * width,
            "hidden_dim": 4 * width,
            "max_position_embeddings": length + 2,  # roberta counts from 2
        }
    )
    return HuggingFace(transformers.AutoModel.from_config(config), first=1)


def vocabulary_of(pretrained: str) -> dict[str, int]:
    """The number of every token. BadInput if there is no tokenizer.json."""
    from tokenizers import Tokenizer

    file = Path(pretrained) / "tokenizer.json"
    try:
        if Path(pretrained).is_dir():
            return Tokenizer.from_file(str(file)).get_vocab()
        return Tokenizer.from_pretrained(pretrained).get_vocab()
    except Exception as error:  # the library raises nothing narrower
        raise BadInput(f"hugging_face: {pretrained} has no tokenizer.json: {error}") from None


def mean_of_tokens(x: Tensor, kept: Tensor) -> Tensor:
    """float32 [B, D], the mean of x [B, L, D] over the places that are ``kept``, bool [B, L]."""
    weight = kept[:, :, None].float()
    return (x.float() * weight).sum(1) / weight.sum(1)
