"""Validators: how good one state of a cell looks, with target labels and without.

All but ``target_val`` read the target's features without labels. Which agree with accuracy on the
target, and how rarely, is measured by Musgrave, Belongie and Lim (2022, arXiv:2208.07360).
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchbench.evaluation.feature_statistics import FEWEST, drawn, effective_rank, enough_threads
from benchbench.evaluation.features import RESOLUTION, Features
from benchbench.evaluation.readouts.interface import Fitted, goodness, linear_scores
from benchbench.evaluation.readouts.linear_probe import logistic_path
from benchbench.store.keys import key_of
from benchbench.store.records import Validators

VERSION = 1  # of what is kept of features: what is kept under another version is not read
ROWS = 10_000  # the most rows of a side that are read
FEW = 2_000  # the most of the target that are compared with each other, clustered or decomposed
HELD_OUT = 5  # a row in so many chooses the penalty of the classifier of domains
PATH = torch.logspace(-6, 2, 9, dtype=torch.float64).tolist()  # its C, of features of variance 1
MAX_ITER = 100
EVEN = 1e-3  # weights whose standard deviation is below, as a share of their mean, do not vary
FARTHEST = 2.0  # the most by which the mean of weights may differ from 1, as a factor
TEMPERATURE = 0.05  # of soft neighbourhoods
STARTS = 3  # of k-means, of which the best is taken


@dataclass(frozen=True)
class Common:
    """What validators take from features alone: the same for all readouts of an encoder."""

    rankme: float | None = None
    ratio: Tensor | None = None  # float64 [V], `density_ratio` of the source's validation rows
    clusters: Tensor | None = None  # int64 [M], of the target's rows that are compared

    def packed(self) -> tuple[dict[str, Tensor], float | None]:
        """As a store keeps it: tensors, and a note."""
        tensors = {"ratio": self.ratio, "clusters": self.clusters}
        return {name: one.cpu() for name, one in tensors.items() if one is not None}, self.rankme

    @classmethod
    def unpacked(cls, tensors: Mapping[str, Tensor], note: float | None) -> "Common":
        return cls(note, tensors.get("ratio"), tensors.get("clusters"))


def common_key(
    encoder_key: str, fingerprint: str, labelled: tuple[str, ...], targets: tuple[str, ...]
) -> str:
    """Under which what is common to all readouts of an encoder on a shift is kept."""
    about = {"encoder": encoder_key, "data": fingerprint, "validators": VERSION}
    return key_of({**about, "labelled": labelled, "targets": targets})


def in_common(
    source_train: Tensor, source_val: Tensor, target_train: Tensor, num_classes: int
) -> Common:
    """Of features [N, D], [V, D] and [M, D], as `validate` is told; None of what cannot be told.

    Of numbers (``num_classes`` 0) it is ``rankme`` alone.
    """
    source, target = legible(source_train), legible(target_train)
    if not len(target):
        return Common()
    with enough_threads(target.numel() * max(num_classes, 1)):
        rankme = finite(effective_rank(target))
        if not num_classes:
            return Common(rankme)
        told = min(len(source), len(target)) >= FEWEST and source_val.isfinite().all()
        ratio = density_ratio(source, target, source_val) if told else None
        return Common(rankme, ratio, clusters_of(target[drawn(len(target), FEW)], num_classes))


def legible(z: Tensor) -> Tensor:
    """The rows of [N, D] that are read; none if one of them is not finite."""
    some = z[drawn(len(z), ROWS)]
    return some if some.isfinite().all() else some[:0]


def validate(
    fitted: Fitted,
    common: Common,
    source_val: Features,
    target_train: Tensor,
    target_val: Features,
    num_classes: int,
) -> Validators:
    """What rules of selection choose by; None of what cannot be told, or is not finite.

    ``common`` is of the same ``source_val``, ``target_train`` and ``num_classes``. Labels are known
    ones, int64 below ``num_classes``, or numbers where it is 0: then there are source_val,
    target_val and rankme alone. ``target_train`` is [M, D], of rows whose labels are read nowhere.
    Entropy, infomax, snd and bnm want a readout whose scores are log-odds, and take its
    probabilities as they are: where a penalty was chosen by accuracy, they tell of it as well. Of
    large sides a fixed draw is read, so that the same features always give the same numbers.
    """
    told = {"source_val": quality(fitted, source_val), "target_val": quality(fitted, target_val)}
    told["rankme"] = common.rankme
    if num_classes and len(target := legible(target_train)):
        with enough_threads(target.numel() * num_classes):
            told["dev"] = dev(fitted, common.ratio, source_val)
            told |= of_predictions(fitted, target, common.clusters)
    return Validators(**{name: finite(value) for name, value in told.items()})


def finite(value: float | None) -> float | None:
    """None for NaN and ±∞; 0 for −0."""
    return value + 0.0 if value is not None and abs(value) < float("inf") else None


def scores_of(fitted: Fitted, z: Tensor) -> Tensor | None:
    """The readout's scores of [N, D]; None if there is no row, or if one is not finite."""
    scores = fitted.scores(z) if len(z) else z
    return scores if len(z) and scores.isfinite().all() else None


def quality(fitted: Fitted, rows: Features) -> float | None:
    """Accuracy, or minus the mean squared error of numbers; None of no row."""
    scores = scores_of(fitted, rows.z)
    return None if scores is None else goodness(scores, rows.labels)


def dev(fitted: Fitted, ratio: Tensor | None, val: Features) -> float | None:
    """Minus the deep embedded validation risk (You, Wang, Long and Jordan, ICML 2019).

    ``ratio``, float64 [V], is how much more frequent each row of ``val`` is in the target. The loss
    is 1 of a wrong prediction and 0 of a right one, as in the authors' code
    (github.com/thuml/Deep-Embedded-Validation): every readout has it, and the value is the accuracy
    to be expected on the target, less 1. None where the ratio does not tell it; see
    `tells_a_risk`.
    """
    scores = scores_of(fitted, val.z)
    if scores is None or ratio is None or not tells_a_risk(ratio):
        return None
    losses = (scores.argmax(1) != val.labels).double()
    return -controlled_risk(ratio.to(losses.device), losses)


def tells_a_risk(weights: Tensor) -> bool:
    """Whether a risk on the target can be estimated with these weights [N] of source rows.

    It can where three hold, none of which depends on the losses or on the features' scale:

    * the mean weight m is between 1/2 and 2. Of the true ratio it is 1; of a ratio that is right
      where the source has rows it is the share of the target that lies there, and about losses of 0
      and 1 on the rest nothing is known, so that the risk is open by 1 − m;
    * Kish's effective sample size (Σw)² / Σw², 1965, is at least `FEWEST`;
    * so is N / (1 + ((1 − m) / s)²), s the weights' standard deviation: `controlled_risk` is the
      least-squares line of wℓ on w at w = 1, whose variance is that of a mean of so many rows. Of
      weights that do not vary no line is fitted.
    """
    count, mean = len(weights), weights.mean().item()
    if not 1 / FARTHEST <= mean <= FARTHEST:  # nor NaN
        return False
    spread = weights.std(correction=0).item()
    away = 0.0 if spread <= EVEN * mean else (1 - mean) / spread
    return count / (1 + max(spread / mean, abs(away)) ** 2) >= FEWEST


def controlled_risk(weights: Tensor, losses: Tensor) -> float:
    """mean(wℓ) + η mean(w) − η of weights and losses [N], η = −Cov(wℓ, w) / Var(w).

    The mean of weights is known to be 1: what it is beyond tells how far mean(wℓ) is off. A loss of
    c on every row is a risk of c, whatever the weights. Of weights that do not vary η is
    −mean(wℓ) / mean(w), and the risk Σwℓ / Σw. NaN where all weights are 0.
    """
    mean, weighted = weights.mean(), weights * losses
    excess = weights - mean
    variance = excess.square().mean()
    if variance > (EVEN * mean).square():
        eta = -((weighted - weighted.mean()) * excess).mean() / variance
    else:
        eta = -weighted.mean() / mean
    return (weighted.mean() + eta * (mean - 1)).item()


def density_ratio(source: Tensor, target: Tensor, z: Tensor) -> Tensor:
    """float64 [N]: how much more frequent the rows of ``z`` are in the target than in the source.

    (n_s / n_t) p(target | z) / p(source | z), by logistic regression on four fifths of both sides.
    Where the authors choose among nine penalties by accuracy on the others, here it is by
    cross-entropy, which is lowest for the true ratio, also when one side is small. Penalties are
    relative to the features' variance. 1 if they are constant.
    """
    (source, held_source), (target, held_target) = divided(source), divided(target)
    both, held = torch.cat([source, target]), torch.cat([held_source, held_target])
    variance = both.double().var(0).mean().item()
    if variance <= RESOLUTION**2 * both.double().square().mean().item():
        return torch.ones(len(z), dtype=torch.float64, device=z.device)
    path = [c / variance for c in PATH]
    classifiers = logistic_path(both, sides(source, target), 2, path, MAX_ITER)
    truth = sides(held_source, held_target)
    losses = [F.cross_entropy(linear_scores(each)(held), truth).item() for each in classifiers]
    scores = linear_scores(classifiers[losses.index(min(losses))])(z)
    return (scores[:, 1] - scores[:, 0]).exp() * len(source) / len(target)


def divided(z: Tensor) -> tuple[Tensor, Tensor]:
    """Rows to fit on, and rows to choose by: a fixed draw."""
    chooses = torch.zeros(len(z), dtype=torch.bool)
    chooses[drawn(len(z), len(z) // HELD_OUT)] = True
    return z[~chooses], z[chooses]


def sides(source: Tensor, target: Tensor) -> Tensor:
    """int64: 0 for each row of the source, then 1 for each of the target."""
    zeros = torch.zeros(len(source), dtype=torch.int64, device=source.device)
    return F.pad(zeros, (0, len(target)), value=1)


def of_predictions(
    fitted: Fitted, target: Tensor, clusters: Tensor | None
) -> dict[str, float | None]:
    """What predictions on target rows [N, D] tell of themselves, and beside clusters of a few."""
    few = target[drawn(len(target), FEW)]
    scores = scores_of(fitted, target if fitted.log_odds else few)
    if scores is None:
        return {}
    which = drawn(len(scores), FEW)
    told = {"class_ami": class_ami(scores[which].argmax(1), clusters)}
    if fitted.log_odds:
        p = scores.double().softmax(1)
        told |= {"entropy": -entropy(p), "infomax": infomax(p)}
        told |= {"snd": snd(p[which]), "bnm": bnm(p[which])}
    return told


def entropy(p: Tensor) -> float:
    """The mean entropy, in nats, of rows [N, K] of probabilities: 0 to log K."""
    return torch.special.entr(p).sum(1).mean().item()


def infomax(p: Tensor) -> float:
    """The entropy of the mean row of [N, K], less the mean entropy of rows: 0 to log K.

    The mutual information of row and prediction (Shi and Sha, ICML 2012, arXiv:1206.6438).
    """
    return entropy(p.mean(0, keepdim=True)) - entropy(p)


def snd(p: Tensor) -> float | None:
    """Soft neighbourhood density of predictions [N, K] (Saito et al., ICCV 2021, arXiv:2108.10860).

    The mean entropy, at most log(N − 1), of every row's softmax over its cosines with the others,
    at a temperature of 0.05. It is at its most where all rows have the same prediction. None of
    fewer than two rows.
    """
    if len(p) < 2:
        return None
    unit = F.normalize(p, dim=1)
    similar = (unit @ unit.T / TEMPERATURE).fill_diagonal_(-torch.inf)
    return entropy(similar.softmax(1))


def bnm(p: Tensor) -> float:
    """‖P‖_* / √(N min(N, K)) of predictions [N, K]: at most 1, as of balanced one-hot rows.

    The batch nuclear norm (Cui et al., CVPR 2020, arXiv:2003.12237) over the bound that it has
    there: ‖P‖_* ≤ √min(N, K) ‖P‖_F, and ‖P‖_F ≤ √N. NaN if a prediction is not finite.
    """
    if not p.isfinite().all():  # of which there is no singular value decomposition
        return float("nan")
    largest = (len(p) * min(p.shape)) ** 0.5
    return torch.linalg.matrix_norm(p, "nuc").item() / largest


def class_ami(predicted: Tensor, clusters: Tensor | None) -> float | None:
    """The adjusted mutual information of predictions [N] and `clusters_of` the same rows.

    ClassAMI of Musgrave et al. 2022 (arXiv:2208.07360).
    """
    from sklearn.metrics import adjusted_mutual_info_score  # type: ignore[import-untyped]

    if clusters is None:
        return None
    return float(adjusted_mutual_info_score(predicted.cpu().numpy(), clusters.cpu().numpy()))


def clusters_of(z: Tensor, num_classes: int) -> Tensor | None:
    """int64 [N]: as many k-means clusters of features [N, D] as classes, here of length 1.

    None of fewer rows than classes, or if there is but one cluster. By one thread, as k-means of
    several adds up in any order.
    """
    from sklearn.cluster import KMeans  # type: ignore[import-untyped]
    from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped]
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if len(z) < num_classes:
        return None
    k_means = KMeans(num_classes, n_init=STARTS, random_state=0)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # of rows that are the same
        clusters = k_means.fit_predict(F.normalize(z.double(), dim=1).cpu().numpy())
    if clusters.min() == clusters.max():
        return None
    return torch.from_numpy(clusters).long()
