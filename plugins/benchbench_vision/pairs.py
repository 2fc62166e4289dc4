"""Digits of five sources, and nine classes that CIFAR-10 and STL-10 share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchbench import TEST, TRAIN, UNKNOWN, BadInput, DomainData, Download, published
from benchbench_vision.reading import Part, joined, read

DIGIT_FILES = {
    "mnist": tuple(
        f"MNIST/raw/{part}-{what}"
        for part in ("train", "t10k")
        for what in ("images-idx3-ubyte", "labels-idx1-ubyte")
    ),
    "mnistm": tuple(
        f"mnist_m/mnist_m_{part}{what}"
        for part in ("train", "test")
        for what in ("", "_labels.txt")
    ),
    "usps": ("USPS/usps.bz2", "USPS/usps.t.bz2"),
    "svhn": ("SVHN/train_32x32.mat", "SVHN/test_32x32.mat"),
    "syn": ("SynthDigits/synth_train_32x32.mat", "SynthDigits/synth_test_32x32.mat"),
}
DIGITS = [str(digit) for digit in range(10)]
DIGIT_ROWS = {"mnist": 70_000, "mnistm": 68_002, "usps": 9_298, "svhn": 99_289, "syn": 488_953}


def chosen(domains: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := [name for name in domains if name not in DIGIT_FILES]:
        known = ", ".join(DIGIT_FILES)
        raise BadInput(f"digits5 has no domain {unknown[0]!r}; it has {known}")
    if len(set(domains)) < 2 or len(set(domains)) < len(domains):
        raise BadInput(f"digits5(domains={domains!r}) should name two or more, each once")
    return domains


@published(
    home="http://yaroslav.ganin.net and torchvision's MNIST, USPS, SVHN",
    licence="MNIST CC BY-SA 3.0; USPS, SVHN, MNIST-M and SYN: research, not commercial",
    files=lambda domains, **_: [path for name in chosen(domains) for path in DIGIT_FILES[name]],
    rows=lambda domains, **_: {name: DIGIT_ROWS[name] for name in chosen(domains)},
    downloads=lambda domains, **_: [item for name in domains for item in digit_downloads(name)],
)
def digits5(
    root: Path,
    *,
    domains: tuple[str, ...] = ("mnist", "mnistm", "usps", "svhn", "syn"),
    size: int = 32,
    seed: int = 0,
) -> DomainData:
    """Digits: MNIST, MNIST-M, USPS, SVHN and SYN Numbers, complete (Ganin et al. 2016).

    MNIST, USPS and SVHN lie as torchvision keeps them in ``MNIST``, ``USPS`` and ``SVHN``; MNIST-M
    and SYN Numbers as Ganin publishes them, in ``mnist_m`` and ``SynthDigits``. A fifth of each
    class of the training rows, drawn with ``seed``, validates.
    """
    names = chosen(domains)
    files = [Path(root) / path for name in names for path in DIGIT_FILES[name]]
    return joined(
        (part for number, name in enumerate(names) for part in digits_of(name, number, Path(root))),
        size,
        DIGITS,
        names,
        "MNIST CC BY-SA 3.0; USPS, SVHN, MNIST-M and SYN: research, not commercial",
        files,
        seed,
    )


def digit_downloads(name: str) -> list[Download]:
    """From where torchvision knows them; of MNIST-M and SYN Numbers it does not."""
    from torchvision.datasets import MNIST, SVHN, USPS

    if name == "mnist":
        base, folder = MNIST.mirrors[0], "MNIST/raw"
        return [Download(base + f, f"{folder}/{f}", md5, folder) for f, md5 in MNIST.resources]
    lists = {"usps": ("USPS", USPS.split_list), "svhn": ("SVHN", SVHN.split_list)}
    folder, listed = lists.get(name, ("", {}))
    return [
        Download(url, f"{folder}/{file}", md5)
        for split, (url, file, md5) in listed.items()
        if split in ("train", "test")
    ]


def digits_of(name: str, number: int, root: Path) -> Iterator[Part]:
    from torchvision.datasets import MNIST, SVHN, USPS

    for split, word, train in ((TRAIN, "train", True), (TEST, "test", False)):
        if name == "mnist":
            data = read(MNIST, root, train=train)
            yield Part(data.data.numpy(), data.targets.numpy(), number, split)
        elif name == "usps":
            data = read(USPS, root / "USPS", train=train)
            yield Part(data.data, np.array(data.targets), number, split)
        elif name == "svhn":
            data = read(SVHN, root / "SVHN", split=word)
            yield Part(data.data.transpose(0, 2, 3, 1), data.labels, number, split)
        elif name == "syn":
            yield Part(*matlab(root / "SynthDigits" / f"synth_{word}_32x32.mat"), number, split)
        else:
            yield Part(*listed(root / "mnist_m" / f"mnist_m_{word}"), number, split)


def matlab(place: Path) -> tuple[np.ndarray, np.ndarray]:
    """SYN Numbers, a file like SVHN's: ``X`` [H, W, 3, N] and ``y``, in which 10 may be 0."""
    from scipy.io import loadmat

    try:
        content = loadmat(place)
        images, labels = content["X"].transpose(3, 0, 1, 2), content["y"].ravel()
    except Exception as error:  # scipy raises half a dozen types on a broken file
        raise BadInput(f"{place} cannot be read: {error}") from None
    if images.dtype != np.uint8 or len(labels) != len(images):
        raise BadInput(
            f"{place}: X should be uint8 with an image for each of y, but it is {images.dtype} "
            f"with {len(images):,} for {len(labels):,}"
        )
    if wrong := [value for value in np.unique(labels).tolist() if value not in range(11)]:
        raise BadInput(f"{place}: y holds {wrong[0]}, which is no digit")
    return images, labels.astype(np.int64) % 10


def listed(folder: Path) -> tuple[list[Path], np.ndarray]:
    """MNIST-M: a folder of images, and beside it lines of a name and a digit."""
    place = folder.with_name(f"{folder.name}_labels.txt")
    paths, labels = [], []
    for number, line in enumerate(place.read_text(errors="replace").splitlines(), start=1):
        if not (words := line.split()):
            continue
        if len(words) != 2 or words[1] not in DIGITS:
            raise BadInput(f"{place}, line {number}: {line!r} is not a name and a digit")
        paths.append(folder / words[0])
        labels.append(int(words[1]))
    return paths, np.array(labels)


SHARED = ("airplane", "automobile", "bird", "cat", "deer", "dog", "horse", "ship", "truck")
TO_SHARED = {  # of each dataset's own class numbers; CIFAR's frog and STL's monkey have no twin
    "cifar": (0, 1, 2, 3, 4, 5, -1, 6, 7, 8),
    "stl": (0, 2, 1, 3, 4, 5, 6, -1, 7, 8),
}


def _stl_files(unlabelled: bool) -> list[str]:
    names = [f"{part}_{what}.bin" for part in ("train", "test") for what in "Xy"]
    return [f"stl10_binary/{name}" for name in [*names, *["unlabeled_X.bin"] * unlabelled]]


CIFAR_FILES = [
    f"cifar-10-batches-py/{name}"
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")
]


def cifar_downloads() -> list[Download]:
    from torchvision.datasets import CIFAR10

    return [Download(CIFAR10.url, CIFAR10.filename, CIFAR10.tgz_md5, "")]


def stl_downloads() -> list[Download]:
    from torchvision.datasets import STL10

    return [Download(STL10.url, STL10.filename, STL10.tgz_md5, "")]


@published(
    home="https://www.cs.toronto.edu/~kriz/cifar.html and https://cs.stanford.edu/~acoates/stl10/",
    licence="none stated; research",
    files=lambda unlabelled, **_: [*CIFAR_FILES, *_stl_files(unlabelled)],
    rows=lambda unlabelled, **_: {"cifar": 54_000, "stl": 11_700 + 100_000 * unlabelled},
    downloads=lambda **_: [*cifar_downloads(), *stl_downloads()],
)
def cifar_stl(root: Path, *, unlabelled: bool = True, size: int = 32, seed: int = 0) -> DomainData:
    """CIFAR-10 and STL-10: the nine classes that both have (French et al. 2018).

    ``unlabelled`` adds STL's 100,000 images without labels, some of other classes, to its training
    rows. A fifth of each class of the training rows, drawn with ``seed``, validates.
    """
    from torchvision.datasets import CIFAR10, STL10

    root, parts = Path(root), []
    for split, word, train in ((TRAIN, "train", True), (TEST, "test", False)):
        cifar, stl = read(CIFAR10, root, train=train), read(STL10, root, split=word)
        for number, (name, images, labels) in enumerate(
            (
                ("cifar", cifar.data, np.array(cifar.targets)),
                ("stl", stl.data.transpose(0, 2, 3, 1), stl.labels),
            )
        ):
            known = np.array(TO_SHARED[name])[labels]
            parts.append(Part(images[known >= 0], known[known >= 0], number, split))
    if unlabelled:
        images = read(STL10, root, split="unlabeled").data.transpose(0, 2, 3, 1)
        parts.append(Part(images, np.full(len(images), UNKNOWN), 1, TRAIN))
    files = [root / path for path in (*CIFAR_FILES, *_stl_files(unlabelled))]
    return joined(parts, size, SHARED, ("cifar", "stl"), "none stated; research", files, seed)
