"""What a stage may spend."""

from dataclasses import dataclass, fields

from benchbench.extension.constants import Optimizer


@dataclass(frozen=True)
class Budget:
    """What a stage may spend."""

    steps: int
    batch_size: int  # rows drawn per step, as many from every domain the stage sees
    lr: float
    weight_decay: float
    warmup: float  # the share of the steps over which the learning rate rises
    optimizer: Optimizer = "adamw"
    parts: int = 1  # in which a batch passes through the encoder, to need less memory

    @property
    def images_seen(self) -> int:
        return self.steps * self.batch_size

    @property
    def key(self) -> dict[str, object]:
        """For keys: what has a default is left out where it has it, as before there was any.

        LARS without decay has a mark, since under the key without it lies what SGD trained.
        """
        told = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }
        if self.optimizer == "lars" and not self.weight_decay:
            told["adapts"] = True
        return told
