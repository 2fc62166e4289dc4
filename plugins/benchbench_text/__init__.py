"""Encoders and augmentations of texts."""

from collections.abc import Callable

from torch import Tensor, nn

from benchbench import hookimpl
from benchbench_text.encoders import hugging_face, transformer
from benchbench_text.views import span, synonyms, token_dropout

benchbench_expected_failures = {
    "hugging_face": {"no_waits": "transformers looks at whether there is padding"}
}


@hookimpl
def benchbench_encoders() -> dict[str, Callable[..., nn.Module]]:
    return {"hugging_face": hugging_face, "transformer": transformer}


@hookimpl
def benchbench_augmentations() -> dict[str, Callable[..., Callable[[Tensor], Tensor]]]:
    return {"span": span, "synonyms": synonyms, "token_dropout": token_dropout}
