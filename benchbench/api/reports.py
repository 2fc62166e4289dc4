"""What diagnoses and measurements of speed return: figures that print themselves.

``str(report)`` is the text, and ``report.to_json()`` the JSON, that the command prints.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchbench.diagnostics.accuracy_prediction import Judged, Point
    from benchbench.diagnostics.advice import Advice
    from benchbench.diagnostics.augmentation_search import Search
    from benchbench.diagnostics.connectivity_report import ConnectivityTold
    from benchbench.store.records import Record


@dataclass(frozen=True)
class AdviceReport:
    """Whether a classifier will work on new domains; in a notebook, the page."""

    advice: Advice
    page: str  # HTML that explains itself, with its styles and pictures

    def __str__(self) -> str:
        from benchbench.diagnostics.advice_page import in_words

        return "\n".join(map(in_words, self.advice.targets))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return (  # in a frame, as the page's styles are not for the notebook
            f'<iframe srcdoc="{escape(self.page)}" style="width: 100%; height: 45em; border: 0">'
            "</iframe>"
        )

    def to_json(self) -> str:
        from benchbench.diagnostics.advice_page import as_json

        return as_json(self.advice)


@dataclass(frozen=True)
class ConnectivityReport:
    """How augmentations connect domains: one for each augmentation and shift, in that order."""

    found: tuple[ConnectivityTold, ...]

    def __str__(self) -> str:
        from benchbench.diagnostics.connectivity_report import rendered

        return rendered(self.found, "markdown")

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        return str(self)

    def to_json(self) -> str:
        from benchbench.diagnostics.connectivity_report import rendered

        return rendered(self.found, "json")


@dataclass(frozen=True)
class FeatureReport:
    """What the features of scored cells tell of class and domain."""

    records: tuple[Record, ...]

    def __str__(self) -> str:
        return self._as("markdown")

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        return str(self)

    def to_json(self) -> str:
        return self._as("json")

    def to_csv(self) -> str:
        return self._as("csv")

    def _as(self, form: str) -> str:
        from benchbench.leaderboard.diagnostics_table import features_table

        return features_table(self.records, form)


@dataclass(frozen=True)
class PredictorReport:
    """How well connectivity predicts target accuracy, and what else does."""

    points: tuple[Point, ...]
    judged: Mapping[str, Judged]  # by predictor

    def __str__(self) -> str:
        from benchbench.diagnostics.prediction_report import table_of

        return table_of(self.points, self.judged)

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        return str(self)

    def to_json(self) -> str:
        from benchbench.diagnostics.prediction_report import figures_as_json

        return figures_as_json(self.judged)


@dataclass(frozen=True)
class SearchReport:
    """The compositions of augmentations that were tried."""

    search: Search
    texts: Mapping[str, str]  # as "markdown" and as "json"

    @property
    def best(self) -> str:
        """The augmentation to take, as a suite spells it."""
        return self.search.best

    def __str__(self) -> str:
        return self.texts["markdown"]

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        return str(self)

    def to_json(self) -> str:
        return self.texts["json"]


@dataclass(frozen=True)
class FigureReport:
    """Figures, and a text that tells them."""

    figures: Any  # of dicts, lists, numbers and texts
    text: str

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    def to_json(self) -> str:
        return json.dumps(self.figures, indent=1)
