"""Seeds: every purpose has its own."""

import hashlib


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A seed for one purpose, such as ``("views", step)``, that no other purpose shares."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1
