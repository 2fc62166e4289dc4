"""Validators: how good one state of a cell looks, with target labels and without.

All but ``target_val`` read the target's features without labels. Which agree with accuracy on the
target, and how rarely, is measured by Musgrave, Belongie and Lim (2022, arXiv:2208.07360).
"""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

from benchbench.diagnose.geometry import FEWEST, RESOLUTION, drawn, effective_rank, enough_threads
from benchbench.features import Features
from benchbench.readout import Fitted, goodness, logistic_path, with_bias
from benchbench.record import Validators

ROWS = 10_000  # the most rows of a side that are read
FEW = 2_000  # the most of the target that are compared with each other, clustered or decomposed
HELD_OUT = 5  # a row in so many chooses the penalty of the classifier of domains
PATH = torch.logspace(-6, 2, 9, dtype=torch.float64).tolist()  # its C, of features of variance 1
MAX_ITER = 100
EVEN = 1e-3  # weights whose standard deviation is below do not vary
TEMPERATURE = 0.05  # of soft neighbourhoods
STARTS = 3  # of k-means, of which the best is taken


def validate(
    fitted: Fitted,
    source_train: Features,
    source_val: Features,
    target_train: Tensor,
    target_val: Features,
    num_classes: int,
) -> Validators:
    """What rules of selection choose by; None of what cannot be told, or is not finite.

    Labels are known ones, int64 below ``num_classes``, or numbers where it is 0: then there are
    source_val, target_val and rankme alone. ``target_train`` is [N, D], of rows whose labels are
    read nowhere. Entropy, infomax, snd and bnm want a readout whose scores are log-odds, and take
    its probabilities as they are: where a penalty was chosen by accuracy, they tell of it as well.
    Of large sides a fixed draw is read, so that the same features always give the same numbers.
    """
    target = target_train[drawn(len(target_train), ROWS)]
    told = {"source_val": quality(fitted, source_val), "target_val": quality(fitted, target_val)}
    if len(target) and target.isfinite().all():
        with enough_threads(target.numel() * max(num_classes, 1)):
            told["rankme"] = effective_rank(target)
            if num_classes:
                told["dev"] = dev(fitted, source_train.z, source_val, target)
                told |= of_predictions(fitted, target, num_classes)
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


def dev(fitted: Fitted, train: Tensor, val: Features, target: Tensor) -> float | None:
    """Minus the deep embedded validation risk (You, Wang, Long and Jordan, ICML 2019).

    ``train`` and ``target``, [N, D] and [M, D], tell how much more frequent each row of ``val`` is
    in the target. The loss is 1 of a wrong prediction and 0 of a right one, as in the authors' code
    (github.com/thuml/Deep-Embedded-Validation): every readout has it, and the value is the accuracy
    to be expected on the target, less 1. None if a side has fewer than five rows.
    """
    source = train[drawn(len(train), ROWS)]
    scores = scores_of(fitted, val.z)
    if scores is None or min(len(source), len(target)) < FEWEST:
        return None
    if not (source.isfinite().all() and val.z.isfinite().all()):
        return None
    losses = (scores.argmax(1) != val.labels).double()
    return -controlled_risk(density_ratio(source, target, val.z), losses)


def controlled_risk(weights: Tensor, losses: Tensor) -> float:
    """mean(wℓ) + η mean(w) − η of weights and losses [N], η = −Cov(wℓ, w) / Var(w).

    The mean of weights is known to be 1: what it is beyond tells how far mean(wℓ) is off. Of
    weights that do not vary η is 0.
    """
    weighted, excess = weights * losses, weights - weights.mean()
    variance = excess.square().mean()
    eta = -(weighted * excess).mean() / variance if variance > EVEN**2 else torch.zeros(())
    return (weighted.mean() + eta * weights.mean() - eta).item()


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
        return torch.ones(len(z), dtype=torch.float64)
    path = [c / variance for c in PATH]
    classifiers = logistic_path(both, sides(source, target), 2, path, MAX_ITER)
    truth = sides(held_source, held_target)
    losses = [F.cross_entropy(with_bias(held) @ each, truth).item() for each in classifiers]
    scores = with_bias(z) @ classifiers[losses.index(min(losses))]
    return (scores[:, 1] - scores[:, 0]).exp() * len(source) / len(target)


def divided(z: Tensor) -> tuple[Tensor, Tensor]:
    """Rows to fit on, and rows to choose by: a fixed draw."""
    chooses = torch.zeros(len(z), dtype=torch.bool)
    chooses[drawn(len(z), len(z) // HELD_OUT)] = True
    return z[~chooses], z[chooses]


def sides(source: Tensor, target: Tensor) -> Tensor:
    """int64: 0 for each row of the source, then 1 for each of the target."""
    return torch.arange(2).repeat_interleave(torch.tensor([len(source), len(target)]))


def of_predictions(fitted: Fitted, target: Tensor, num_classes: int) -> dict[str, float | None]:
    """What predictions on target rows [N, D] tell of themselves."""
    few = target[drawn(len(target), FEW)]
    scores = scores_of(fitted, target if fitted.log_odds else few)
    if scores is None:
        return {}
    which = drawn(len(scores), FEW)
    told = {"class_ami": class_ami(few, scores[which].argmax(1), num_classes)}
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
    at a temperature of 0.05. None of fewer than two rows.
    """
    if len(p) < 2:
        return None
    unit = F.normalize(p, dim=1)
    similar = (unit @ unit.T / TEMPERATURE).fill_diagonal_(-torch.inf)
    return entropy(similar.softmax(1))


def bnm(p: Tensor) -> float:
    """‖P‖_* / √(N min(N, K)) of predictions [N, K]: at most 1, as of balanced one-hot rows.

    The batch nuclear norm (Cui et al., CVPR 2020, arXiv:2003.12237) over the bound that it has
    there: ‖P‖_* ≤ √min(N, K) ‖P‖_F, and ‖P‖_F ≤ √N.
    """
    largest = (len(p) * min(p.shape)) ** 0.5
    return torch.linalg.matrix_norm(p, "nuc").item() / largest


def class_ami(z: Tensor, predicted: Tensor, num_classes: int) -> float | None:
    """The adjusted mutual information of predictions [N] and clusters of features [N, D].

    ClassAMI of Musgrave et al. 2022 (arXiv:2208.07360): as many k-means clusters as classes, here
    of features of length 1. None of fewer rows than classes, or if there is but one cluster. By one
    thread, as k-means of several adds up in any order.
    """
    from sklearn.cluster import KMeans  # type: ignore[import-untyped]
    from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped]
    from sklearn.metrics import adjusted_mutual_info_score  # type: ignore[import-untyped]
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if len(z) < num_classes:
        return None
    k_means = KMeans(num_classes, n_init=STARTS, random_state=0)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # of rows that are the same
        clusters = k_means.fit_predict(F.normalize(z.double(), dim=1).numpy())
    if clusters.min() == clusters.max():
        return None
    return float(adjusted_mutual_info_score(predicted.numpy(), clusters))
