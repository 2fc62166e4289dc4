"""What is true of the test rows that a board's predictions are about."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy

from benchbench.extension.constants import TEST
from benchbench.extension.errors import BadInput

if TYPE_CHECKING:
    from benchbench.data.pack import Pack

NAME = "truth.safetensors"


@dataclass(frozen=True)
class Truth:
    """Labels of every domain's test rows, in the order of the predictions in a record's file.

    With it, scores can be computed again where the images are not.
    """

    fingerprint: str  # of the data
    metric: str
    class_names: tuple[str, ...]  # none where labels are numbers
    group_names: tuple[str, ...]
    labels: Mapping[str, np.ndarray]  # by domain: int64 [N], −1 unknown; or float32 [N], NaN
    groups: Mapping[str, np.ndarray]  # by domain: int64 [N], −1 in none, or bool [N, G]; or empty

    @classmethod
    def of(cls, pack: "Pack") -> "Truth":
        rows = {domain: pack.rows(domain, TEST) for domain in pack.domain_names}
        rows = {domain: index for domain, index in rows.items() if len(index)}
        groups = {} if pack.groups is None else {d: pack.groups[i] for d, i in rows.items()}
        return cls(
            pack.fingerprint,
            pack.metric,
            pack.class_names,
            pack.group_names,
            {domain: pack.labels[index].numpy() for domain, index in rows.items()},
            {domain: members.numpy() for domain, members in groups.items()},
        )

    def of_domains(self, domains: Collection[str]) -> "Truth":
        """Of these domains alone."""
        labels, groups = (
            {domain: values for domain, values in told.items() if domain in domains}
            for told in (self.labels, self.groups)
        )
        return replace(self, labels=labels, groups=groups)

    @classmethod
    def read(cls, path: Path) -> "Truth":
        """BadInput if the file is no such thing."""
        try:
            content = path.read_bytes()
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            said = json.loads(header["__metadata__"]["truth"])
            tensors = safetensors.numpy.load(content)
            return cls(
                said["fingerprint"],
                said["metric"],
                tuple(said["class_names"]),
                tuple(said["group_names"]),
                {d: tensors[f"labels of {d}"] for d in said["domains"]},
                {d: tensors[f"groups of {d}"] for d in said["domains"] if said["grouped"]},
            )
        except OSError as error:
            raise BadInput(f"{path} cannot be read: {error.strerror}") from None
        except Exception as error:  # a broken file raises half a dozen types
            raise BadInput(f"{path} does not hold the labels of test rows: {error}") from None

    def content(self) -> bytes:
        """As a safetensors file."""
        said: dict[str, Any] = {
            "fingerprint": self.fingerprint,
            "metric": self.metric,
            "class_names": self.class_names,
            "group_names": self.group_names,
            "domains": [*self.labels],
            "grouped": bool(self.groups),
        }
        tensors = {f"labels of {domain}": labels for domain, labels in self.labels.items()}
        tensors |= {f"groups of {domain}": groups for domain, groups in self.groups.items()}
        return safetensors.numpy.save(tensors, {"truth": json.dumps(said, sort_keys=True)})
