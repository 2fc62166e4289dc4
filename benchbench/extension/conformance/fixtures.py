"""What a check gets to see of an entry, and how it says what is wrong."""

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchbench.data.batches import Feed
from benchbench.data.dataset_loading import check_files
from benchbench.data.pack import Pack, in_memory
from benchbench.data.preparation import prepare
from benchbench.extension.catalog import Choice, Entry
from benchbench.extension.conformance.pretended_gpu import PretendedGpu, Seen, works
from benchbench.extension.conformance.side_effects import unguarded
from benchbench.extension.constants import PADDING, TEST, TRAIN, VAL, Optimizer, Precision
from benchbench.extension.contracts import DomainData, Objective, Task, begun
from benchbench.extension.errors import BadInput
from benchbench.store.artifacts import Store
from benchbench.training.budget import Budget
from benchbench.training.loop import Augment, Checkpoints, Views, Watch, train
from benchbench.training.seeds import derive_seed

SIDE = 16  # of the images, in pixels
CLASSES, DOMAINS = ("low", "middle", "high"), ("left", "right", "odd")
TASK = Task((3, SIDE, SIDE), len(CLASSES), len(DOMAINS))
WORDS = ("[UNK]", "[MASK]", "the", "film", "was", "not", "good", "great", "bad", "poor", "long")
TEXTS = Task((12,), len(CLASSES), len(DOMAINS), WORDS)
STEPS, BATCH = 6, 12


class Broken(Exception):
    """The entry does not do what it must; the message says what, and the remedy."""


class Skip(Exception):
    """The check does not apply; the message says why."""


class CannotBuild(Exception):
    """There is nothing to check."""


@dataclass(frozen=True)
class Subject:
    """An entry, and what checks share of it."""

    entry: Entry
    root: Path  # where a dataset finds its files
    scratch: Path  # where the kit keeps what it decodes
    long: int = 60  # steps of the check `healthy`
    cache: dict[str, Any] = field(default_factory=dict)

    def build(self, *supplied: Any, **options: Any) -> Any:
        """From the defaults but for ``options``. CannotBuild if the factory raises."""
        choice = Choice(self.entry, {**self.entry.options, **options})
        try:
            if self.entry.kind == "dataset":
                check_files(choice, *supplied)
            return self.entry.factory(*supplied, **choice.options)
        except BadInput as error:
            raise CannotBuild(str(error)) from error
        except (Exception, SystemExit) as error:
            raise CannotBuild(told(error)) from error

    @property
    def probe(self) -> type["Probe | TokenProbe"]:
        """The encoder that an objective is tried on: a transformer, if it refuses a convolution."""

        def chosen() -> type[Probe | TokenProbe]:
            try:
                self.build(Probe(), TASK)
            except CannotBuild as error:
                if isinstance(error.__cause__, BadInput):
                    try:
                        self.build(TokenProbe(), TASK)
                    except CannotBuild:
                        raise error from error.__cause__
                    return TokenProbe
            return Probe

        return self._kept("probe", chosen)

    @property
    def of_texts(self) -> bool:
        """Of an encoder or augmentation: whether it reads texts, and no images."""
        return self.entry.modalities == {"text"}

    def lacks_files(self, error: CannotBuild) -> bool:
        """A dataset that refuses to be built is no fault of its plugin's: its data are not here."""
        return self.entry.kind == "dataset" and isinstance(error.__cause__, BadInput)

    def lacks_package(self, error: CannotBuild) -> bool:
        """A factory may do without a package, and say so in BadInput, from the ImportError."""
        cause = error.__cause__
        return isinstance(cause, BadInput) and isinstance(cause.__cause__, ImportError)

    @property
    def data(self) -> DomainData:
        """Of a dataset. Skip if its files are not there."""
        return self._kept("data", lambda: self.build(self.root))

    @property
    def pack(self) -> Pack:
        """Of a dataset. CannotBuild if it breaks the contract of DomainData."""

        def made() -> Pack:
            try:
                return self.packed(self.data)
            except BadInput as error:
                raise CannotBuild(str(error)) from error

        return self._kept("pack", made)

    def packed(self, data: DomainData) -> Pack:
        """BadInput if the data break the contract of DomainData."""
        with unguarded():
            return prepare(data, Store(self.scratch), 0, lambda done, total: None)[0]

    def left(self, run: Callable[[], "Trained"]) -> "Left":
        """What ``run``, the honest short run of seed 0, leaves: made once for all checks."""

        def made() -> Left:
            self.cache["trained"] = run()
            return self.cache["trained"].left

        return self._kept("left", made)

    def trained(self, run: Callable[[], "Trained"]) -> "Trained":
        """Encoder and objective after the same run, for one check, which may change them."""
        self.left(run)
        return self.cache.pop("trained", None) or run()

    def rehearsed(self, trial: Callable[[PretendedGpu], Seen]) -> Seen:
        """What a trial on a pretended GPU finds, made once. Skip where torch lets none be."""

        def made() -> Seen:
            if not works():
                raise Skip(f"a GPU cannot be pretended with torch {torch.__version__}")
            with PretendedGpu() as gpu:
                return trial(gpu)

        return self._kept("rehearsed", made)

    def _kept(self, name: str, make: Callable[[], Any]) -> Any:
        """What was made, or the error of the first try."""
        if name not in self.cache:
            try:
                self.cache[name] = make()
            except (CannotBuild, Skip) as error:
                self.cache[name] = error
        if isinstance(self.cache[name], Exception):
            raise self.cache[name]
        return self.cache[name]


def told(error: BaseException) -> str:
    """An error, and the line of the plugin that raised it."""
    library = str(Path(torch.__file__).parent)
    passed = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in passed if not frame.filename.startswith(library)]
    where = f", at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}".partition("\n")[0] + where


class Probe(nn.Module):
    """An encoder for checks of other things: one convolution with batch norm."""

    def __init__(self, task: Task = TASK, num_features: int = 10) -> None:
        super().__init__()
        self.num_features = num_features
        self.convolution = nn.Conv2d(task.input_shape[0], num_features, 3, 2, 1)
        self.norm = nn.BatchNorm2d(num_features)

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(self.norm(self.convolution(images))).mean((2, 3))


class DeepProbe(Probe):
    """With a linear map at its end, which can send all images to one point."""

    def __init__(self, task: Task = TASK, num_features: int = 10) -> None:
        super().__init__(task, num_features)
        self.shape = task.input_shape[1:]
        side = -(-self.shape[0] // 2)
        self.last = nn.Linear(num_features * side * side, num_features)

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[2:] != self.shape:  # a small view
            images = nn.functional.interpolate(images, self.shape)
        return self.last(torch.relu(self.norm(self.convolution(images))).flatten(1))


class TokenProbe(nn.Module):
    """A vision transformer of one block, for what refuses a convolution."""

    def __init__(self, task: Task = TASK, num_features: int = 10) -> None:
        from timm.models.vision_transformer import VisionTransformer

        super().__init__()
        self.num_features = num_features
        channels, height, width = task.input_shape
        self.transformer = VisionTransformer(
            img_size=(height, width),
            patch_size=4,
            in_chans=channels,
            num_classes=0,
            global_pool="avg",
            embed_dim=num_features,
            depth=1,
            num_heads=1,
        )

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.transformer(images)
        return features


class Reader(Objective):
    """Cross-entropy on what labels are shown, for checks of other things."""

    n_views = 1
    reads = {"labels", "domains"}

    def __init__(self, encoder: nn.Module, task: Task) -> None:
        super().__init__()
        self.head = nn.Linear(int(encoder.num_features), task.num_classes)  # type: ignore[arg-type]

    def forward(self, encoder: nn.Module, batch: Any) -> Tensor:
        z = self.head(encoder(batch.views[0]))
        return nn.functional.cross_entropy(z.float(), batch.labels, ignore_index=-1) + z.std()


def bars(rows: int = 40, task: Task = TASK, seed: int = 0) -> DomainData:
    """A bright bar, whose height is the class, on a ground, whose grey is the domain."""
    generator = torch.Generator().manual_seed(seed)
    channels, side, _ = task.input_shape
    n = rows * len(CLASSES) * len(DOMAINS)
    index = torch.arange(n)
    labels, domains = index % 3, index // 3 % 3
    images = torch.randint(0, 40, (n, channels, side, side), generator=generator)
    images += 50 * domains[:, None, None, None]
    for row in range(n):
        top = 5 * int(labels[row])
        images[row, :, top : top + 5] += 80
    split = torch.tensor([TRAIN, TRAIN, TRAIN, VAL, TEST])[index // 9 % 5]
    licence = "made by a formula"
    return DomainData(
        images.to(torch.uint8), labels, domains, CLASSES, DOMAINS, split, licence=licence
    )


def texts(rows: int, seed: int) -> Tensor:
    """int32 [rows, L] of random words, of random length."""
    (length,), generator = TEXTS.input_shape, torch.Generator().manual_seed(seed)
    shape = (rows, length)
    words = torch.randint(len(WORDS), shape, generator=generator, dtype=torch.int32)
    ends = torch.randint(2, length + 1, (rows, 1), generator=generator)
    return words.where(torch.arange(length) < ends, torch.tensor(PADDING, dtype=torch.int32))


def sentences(rows: int = 8) -> DomainData:
    """Texts of random words, of which the first is the class and the second the domain."""
    n = rows * len(CLASSES) * len(DOMAINS)
    tokens = texts(n, seed=0)
    index = torch.arange(n)
    labels, domains = index % 3, index // 3 % 3
    tokens[:, 0], tokens[:, 1] = labels + 2, domains + 5
    split = torch.tensor([TRAIN, TRAIN, TRAIN, VAL, TEST])[index // 9 % 5]
    return DomainData(
        tokens, labels, domains, CLASSES, DOMAINS, split, licence="made by a formula",
        vocabulary=WORDS,
    )  # fmt: skip


def packed(data: DomainData) -> Pack:
    return in_memory(data)


def with_noise(pack: Pack, domain: str) -> Pack:
    """The pack with other labels in one domain, none of them as it was."""
    there = pack.domains == pack.domain_names.index(domain)
    shift = torch.randint(1, len(pack.class_names), (len(pack.labels),))
    noise = (pack.labels + shift) % len(pack.class_names)
    labels = torch.where(there & (pack.labels >= 0), noise, pack.labels)
    return Pack(**{**vars(pack), "labels": labels})


@dataclass(frozen=True)
class Left:
    """What a run leaves, which nothing changes afterwards."""

    losses: list[float]
    state: dict[str, Tensor]

    def same(self, other: "Left") -> bool:
        """Bit for bit."""
        pairs = zip(self.state.values(), other.state.values(), strict=True)
        return repr(self.losses) == repr(other.losses) and all(
            torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs
        )


@dataclass(frozen=True)
class Trained:
    """Encoder and objective after a short run of the real training loop."""

    encoder: nn.Module
    objective: Objective
    losses: list[float]

    @property
    def left(self) -> Left:
        both = {f"encoder.{name}": t for name, t in self.encoder.state_dict().items()}
        both |= {f"objective.{n}": t for n, t in self.objective.state_dict().items()}
        return Left(self.losses, {name: tensor.clone() for name, tensor in both.items()})


def short_run(
    make_encoder: Callable[[Task], nn.Module],
    make_objective: Callable[[nn.Module, Task], Objective],
    pack: Pack | None = None,
    *,
    seed: int = 0,
    steps: int = STEPS,
    batch: int = BATCH,
    lr: float = 0.01,
    optimizer: Optimizer = "adamw",
    precision: Precision = "fp32",
    device: str = "cpu",
    augment: Augment | None = None,
    watch: Watch | None = None,
    checkpoints: Checkpoints | None = None,
    resume: Mapping[str, Tensor] | None = None,
) -> Trained:
    """Some steps of the real loop: source and target rows, the source's labels."""
    pack = pack or packed(bars())
    source, target = pack.domain_names[:2]
    torch.manual_seed(derive_seed(seed, "encoder"))
    there = torch.device(device)
    encoder = make_encoder(pack.task).to(there)
    torch.manual_seed(derive_seed(seed, "objective"))
    objective = begun(make_objective(encoder, pack.task), encoder, pack.task).to(there)
    assert isinstance(pack.inputs, Tensor), "packs of the kit are in memory"
    feed = Feed(pack, pack.inputs.to(there), (source, target), (source,), batch, seed, there)
    losses = train(
        encoder,
        objective,
        Views(augment or jittered, small=shrunk),
        feed,
        Budget(steps, batch, lr, weight_decay=1e-4, warmup=0.1, optimizer=optimizer),
        seed,
        precision=precision,
        watch=watch,
        checkpoints=checkpoints,
        resume=resume,
    )
    return Trained(encoder, objective, losses)


def shrunk(images: Tensor) -> Tensor:
    """Small views: half of each side."""
    return nn.functional.avg_pool2d(jittered(images), 2)


def jittered(inputs: Tensor) -> Tensor:
    """Noise on images; texts as they are."""
    if not inputs.is_floating_point():
        return inputs
    return (inputs + 0.1 * torch.rand_like(inputs)).clamp(0, 1)


def close(a: Tensor, b: Tensor, tolerance: float = 1e-4) -> bool:
    """Up to rounding, relative to the largest value."""
    if a.shape != b.shape:
        return False
    size = max(float(a.abs().max()), float(b.abs().max()), 1e-6) if a.numel() else 1.0
    return bool(((a - b).abs() <= tolerance * size).all())
