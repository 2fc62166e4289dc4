"""Every loss beside a slow transcription of its formula, for tests and for docs/methods.md.

Each transcription is written in numpy, in float64, row by row and term by term from the paper, and
shares no code with what it checks.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchbench import UNKNOWN, Batch, mean_where, supervised_loss
from benchbench_adversarial.domains import certainty, outer
from benchbench_adversarial.heads import discrepancy, disparity
from benchbench_adversarial.virtual import divergence_from
from benchbench_clustering import sinkhorn, swapped
from benchbench_contrastive import nt_xent, sup_con
from benchbench_decorrelation import barlow_twins, spectral, vicreg
from benchbench_invariance.covariance import coral
from benchbench_invariance.kernels import JAN, gaussians, mmd
from benchbench_invariance.norms import AFN
from benchbench_pretext.masked import masked_error, normalised_patches
from benchbench_robust import (
    IRM,
    gradient_variances,
    mean_of,
    membership,
    raised,
    risk_of_each,
)
from benchbench_selftraining.certainty import batch_nuclear_norm, class_confusion
from benchbench_selftraining.pseudo_labels import confident_cross_entropy, selective_entropy
from benchbench_siamese import cosine, cross_view, info_nce, two_tau_nce
from benchbench_supervised import mixed_cross_entropy

LABELS = torch.tensor([0, 2, 1, 0, 2, 1, 0, 1, -1, -1, -1, -1])  # of 12 rows, four unlabelled
DOMAINS = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1, 2, 2, 2, 2])
UNLABELLED = LABELS == UNKNOWN


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass(frozen=True)
class Case:
    """One loss and its transcription, of the same float64 inputs."""

    ours: Callable[..., Tensor]
    slow: Callable[..., float]
    inputs: tuple[Tensor, ...]
    swaps: bool = False  # inputs 0 and 1 are views, and may change places
    scale_free: bool = False  # the length of a row of an input does not count
    ordered: bool = False  # labels are fixed, so that rows may not change places
    held: Callable[..., float] | None = None  # as slow, of inputs and of what gets no gradient
    differentiable: int | None = None  # how many of the inputs get a gradient; None: all

    @property
    def difference(self) -> float:
        arrays = [tensor.numpy() for tensor in self.inputs]
        return abs(self.ours(*self.inputs).item() - self.slow(*arrays))


def softmax(row):
    shifted = np.exp(row - row.max())
    return shifted / shifted.sum()


def entropy(p):
    return -sum(x * math.log(x) for x in p)


def unit(rows):
    return [row / math.sqrt(sum(row**2)) for row in rows]


def cross_entropy(logits, label):
    return -math.log(softmax(logits)[label])


def slow_nt_xent(a, b, temperature=0.3):
    z = [*unit(a), *unit(b)]
    n, total = len(a), 0.0
    for i in range(2 * n):
        own = math.exp(z[i] @ z[(i + n) % (2 * n)] / temperature)
        total -= math.log(own / sum(math.exp(z[i] @ z[k] / temperature)
                                    for k in range(2 * n) if k != i))  # fmt: skip
    return total / (2 * n)


def slow_sup_con(rows, temperature=0.3):
    z, labels = unit(rows), LABELS[:8].tolist()
    total = 0.0
    for i in range(8):
        below = sum(math.exp(z[i] @ z[a] / temperature) for a in range(8) if a != i)
        positives = [p for p in range(8) if p != i and labels[p] == labels[i]]
        logs = [math.log(math.exp(z[i] @ z[p] / temperature) / below) for p in positives]
        total -= sum(logs) / len(positives)
    return total / 8


def slow_info_nce(query, keys, queue):
    total = 0.0
    for q, k in zip(query, keys, strict=True):
        own = math.exp(q @ k / 0.3)
        total -= math.log(own / (own + sum(math.exp(q @ other / 0.3) for other in queue)))
    return total / len(query)


def slow_two_tau(query, keys, tau=0.2):
    q, k = unit(query), unit(keys)
    total = 0.0
    for i in range(len(q)):
        shares = [math.exp(q[i] @ k[j] / tau) for j in range(len(k))]
        total -= math.log(shares[i] / sum(shares))
    return 2 * tau * total / len(q)


def slow_cosine(p, z):
    return sum(a @ b for a, b in zip(unit(p), unit(z), strict=True)) / len(p)


def slow_cross_view(first, second, third):
    """Two views wanted, three that predict; a view does not predict itself."""
    wanted, logits = [first, second], [first, second, third]
    terms = []
    for i, share in enumerate(wanted):
        for j, scores in enumerate(logits):
            if i != j:
                rows = zip(share, scores, strict=True)
                terms.append(np.mean([-sum(softmax(a) * np.log(softmax(b))) for a, b in rows]))
    return sum(terms) / len(terms)


def slow_codes(scores, epsilon, iterations):
    """Algorithm 1 of the supplement of SwAV, whose Q is [K, B]."""
    q = np.exp(scores / epsilon).T
    q /= q.sum()
    k, b = q.shape
    for _ in range(iterations):
        for row in range(k):
            q[row] /= q[row].sum() * k
        for column in range(b):
            q[:, column] /= q[:, column].sum() * b
    return (q * b).T


def slow_swav(first, second, third, temperature=0.1):
    codes = [slow_codes(view, 0.5, 3) for view in (first, second)]
    terms = []
    for i, code in enumerate(codes):
        for j, scores in enumerate((first, second, third)):
            if i != j:
                rows = zip(code, scores / temperature, strict=True)
                terms.append(np.mean([-sum(q * np.log(softmax(s))) for q, s in rows]))
    return sum(terms) / len(terms)


def slow_barlow_twins(a, b, weight=0.3):
    a, b = ((z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5) for z in (a, b))
    total = 0.0
    for i in range(a.shape[1]):
        for j in range(b.shape[1]):
            c = sum(x * y for x, y in zip(a[:, i], b[:, j], strict=True)) / len(a)
            total += (1 - c) ** 2 if i == j else weight * c**2
    return total


def slow_vicreg(a, b, weights=(25.0, 20.0, 1.5)):
    n, d = a.shape
    invariance = sum(np.sum((x - y) ** 2) for x, y in zip(a, b, strict=True)) / n / d
    variance = covariance = 0.0
    for z in (a, b):
        for j in range(d):
            variance += max(0.0, 1 - np.sqrt(np.var(z[:, j], ddof=1) + 1e-4)) / d
        c = np.cov(z, rowvar=False)
        covariance += sum(c[i, j] ** 2 for i in range(d) for j in range(d) if i != j) / d
    return weights[0] * invariance + weights[1] * variance + weights[2] * covariance


def slow_spectral(a, b):
    n = len(a)
    near = sum(a[i] @ b[i] for i in range(n)) / n
    apart = sum((a[i] @ b[j]) ** 2 for i in range(n) for j in range(n) if i != j)
    return apart / (n * (n - 1)) - 2 * near


def slow_mae(told, images):
    """Two channels of 4 × 4, in patches of 2 × 2, of which every second is hidden."""
    errors = []
    for image, patches in zip(images, told, strict=True):
        for number in range(4):
            if number % 2:
                top, left = 2 * (number // 2), 2 * (number % 2)
                patch = image[:, top : top + 2, left : left + 2].reshape(-1)
                wanted = (patch - patch.mean()) / math.sqrt(patch.var(ddof=1) + 1e-6)
                errors.append(np.mean((patches[number] - wanted) ** 2))
    return float(np.mean(errors))


def slow_known(logits):
    rows = [cross_entropy(logits[i], LABELS[i]) for i in range(12) if LABELS[i] >= 0]
    return sum(rows) / len(rows)


def slow_mixup(logits, share=0.3):
    partner = LABELS.roll(3)
    total = weight = 0.0
    for row, one, other in zip(logits, LABELS.tolist(), partner.tolist(), strict=True):
        for label, part in ((one, share), (other, 1 - share)):
            if label >= 0:
                total, weight = total + part * cross_entropy(row, label), weight + part
    return total / weight


def slow_cdan(z, logits):
    """What the discriminator reads and how rows are weighed, in one number."""
    total, weights = 0.0, [1 + math.exp(-entropy(softmax(row))) for row in logits]
    for row, scores, weight in zip(z, logits, weights, strict=True):
        p = softmax(scores)
        joint = [p[k] * row[d] for k in range(len(p)) for d in range(len(row))]
        total += weight / np.mean(weights) * sum((i + 1) * x for i, x in enumerate(joint))
    return total


def fast_cdan(z, logits):
    p = logits.softmax(1)
    joint = outer(z, p)
    order = torch.arange(1, joint.shape[1] + 1, dtype=z.dtype)
    return (certainty(p) * (joint @ order)).sum()


def slow_mcd(one, other):
    rows = [np.mean(abs(softmax(a) - softmax(b))) for a, b in zip(one, other, strict=True)]
    return sum(rows[i] for i in range(12) if LABELS[i] < 0) / 4


def slow_mdd(logits, adversary, margin=4.0):
    source = target = 0.0
    for i in range(12):
        sigma = softmax(adversary[i])[np.argmax(logits[i])]
        if LABELS[i] >= 0:
            source -= math.log(sigma) / 8
        else:
            target -= math.log(1 - sigma) / 4
    return margin * source + target


def fast_mdd(logits, adversary, margin=4.0):
    agree, contradict = disparity(logits, adversary)
    return margin * mean_where(agree, ~UNLABELLED) + mean_where(contradict, UNLABELLED)


def slow_divergence(logits, others):
    total = 0.0
    for a, b in zip(logits, others, strict=True):
        p, q = softmax(a), softmax(b)
        total += sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))
    return total / len(logits)


def slow_coral(z):
    c = [np.cov(z[DOMAINS.numpy() == d], rowvar=False) for d in range(3)]
    pairs = [np.sum((c[a] - c[b]) ** 2) / 4 / z.shape[1] ** 2 for a, b in ((0, 1), (0, 2), (1, 2))]
    return sum(pairs) / 3


def slow_coral_with_means(z):
    groups = [z[DOMAINS.numpy() == d] for d in range(3)]
    pairs = []
    for a, b in ((0, 1), (0, 2), (1, 2)):
        means = np.mean((groups[a].mean(0) - groups[b].mean(0)) ** 2)
        covariances = np.cov(groups[a], rowvar=False) - np.cov(groups[b], rowvar=False)
        pairs.append(means + np.mean(covariances**2))
    return sum(pairs) / 3


def slow_mmd(kernel):
    """(1/n²) Σ k(s, s') + (1/m²) Σ k(t, t') − (2/nm) Σ k(s, t)."""
    s, t = range(8), range(8, 12)
    same = sum(kernel(a, b) for a in s for b in s) / 64
    other = sum(kernel(a, b) for a in t for b in t) / 16
    return same + other - 2 * sum(kernel(a, b) for a in s for b in t) / 32


def slow_gaussians(z, held=None):
    squares = [[float(np.sum((a - b) ** 2)) for b in z] for a in z]
    held = z if held is None else held
    mean = np.mean([[float(np.sum((a - b) ** 2)) for b in held] for a in held])
    widths = [0.125, 0.25, 0.5, 1, 2]
    return lambda a, b: sum(math.exp(-squares[a][b] / (2 * w * mean)) for w in widths)


def slow_jan(z, logits, held=None, _=None):
    of_features, p = slow_gaussians(z, held), [softmax(row) for row in logits]

    def joint(a, b):
        return of_features(a, b) * math.exp(-np.sum((p[a] - p[b]) ** 2) / (2 * 0.92**2))

    return slow_mmd(joint)


def fast_jan(z, logits):
    return mmd(JAN.similarity(None, z, logits), UNLABELLED)


def norms_of(z):
    """Of labelled rows, and of the others."""
    norms = np.sqrt((z**2).sum(1))
    return norms[:8], norms[8:]


def slow_afn(z, held, step=1.5):
    total = 0.0
    for now, before in zip(norms_of(z), norms_of(held), strict=True):
        total += np.mean([(a - (b + step)) ** 2 for a, b in zip(now, before, strict=True)])
    return total


def slow_hafn(z, radius=1.5):
    """`partial/OfficeHome/HAFN/code/train.py` of the authors, without its weight."""
    return sum((np.mean(norms) - radius) ** 2 for norms in norms_of(z))


def fast_afn(z, **options):
    afn = SimpleNamespace(**{"step": 1.5, "radius": None} | options)
    norms = torch.linalg.vector_norm(z, dim=1)
    return sum(AFN.drawn(afn, norms, rows) for rows in (~UNLABELLED, UNLABELLED))


def slow_confusion(logits, held=None, temperature=2.5):
    rows, told = (
        [softmax(scores[i] / temperature) for i in range(12) if LABELS[i] < 0]
        for scores in (logits, logits if held is None else held)
    )
    weights = np.array([1 + math.exp(-entropy(p)) for p in told])
    weights *= len(rows) / weights.sum()
    k = len(rows[0])
    c = np.zeros((k, k))
    for p, w in zip(rows, weights, strict=True):
        for i in range(k):
            for j in range(k):
                c[i, j] += w * p[i] * p[j]
    shares = [[c[i, j] / sum(c[i]) for j in range(k)] for i in range(k)]
    return sum(shares[i][j] for i in range(k) for j in range(k) if i != j) / k


def slow_nuclear_norm(logits):
    p = np.stack([softmax(logits[i]) for i in range(12) if LABELS[i] < 0])
    return np.sqrt(np.clip(np.linalg.eigvalsh(p @ p.T), 0, None)).sum() / 4


def slow_confident(logits, teacher, threshold=0.5):
    total = 0.0
    for row, told in zip(logits, teacher, strict=True):
        p = softmax(told)
        if max(p) >= threshold:
            total += cross_entropy(row, int(np.argmax(p)))
    return total / len(logits)


def slow_sentry(weak, *committee):
    total = 0.0
    for row in range(len(weak)):
        views = [member[row] for member in committee]
        agreeing = [v for v in views if np.argmax(v) == np.argmax(weak[row])]
        others = [v for v in views if np.argmax(v) != np.argmax(weak[row])]
        if len(agreeing) >= 2:
            total += entropy(softmax(agreeing[-1]))
        else:
            total -= entropy(softmax(others[-1]))
    return total / len(weak)


def risks(logits):
    found = []
    for d in range(2):
        rows = [i for i in range(8) if DOMAINS[i] == d]
        found.append(np.mean([cross_entropy(logits[i], LABELS[i]) for i in rows]))
    return found


def slow_irm(logits):
    """Of two halves the derivatives in w, by central differences of fourth order, multiplied."""
    h, total = 1e-3, 0.0
    for d in range(2):
        rows = [i for i in range(8) if DOMAINS[i] == d]
        slopes = []
        for half in (rows[::2], rows[1::2]):
            r = [
                np.mean([cross_entropy(w * logits[i], LABELS[i]) for i in half])
                for w in (1 + 2 * h, 1 + h, 1 - h, 1 - 2 * h)
            ]
            slopes.append((8 * (r[1] - r[2]) - (r[0] - r[3])) / (12 * h))
        total += slopes[0] * slopes[1] / 2
    return total


MEMBER = membership(LABELS, DOMAINS, 3)


def slow_dro(logits, held=None, eta=0.5):
    q = np.array([0.2, 0.3, 0.5])
    r = risks(logits)
    q = q * np.exp(eta * np.array([*risks(logits if held is None else held), 0.0]))
    q /= q.sum()
    return (q[0] * r[0] + q[1] * r[1]) / (q[0] + q[1])


def fast_dro(logits, eta=0.5):
    r = risk_of_each(logits, LABELS, MEMBER)
    q = raised(torch.tensor([0.2, 0.3, 0.5], dtype=r.dtype), r.detach(), eta) * MEMBER.any(1)
    return (q * r).sum() / q.sum()


def slow_fishr(z, logits):
    """Gradients of each row's loss in the head, one after the other."""
    variances = []
    for d in range(2):
        gradients = []
        for i in range(8):
            if DOMAINS[i] == d:
                p = softmax(logits[i])
                p[LABELS[i]] -= 1
                gradients.append(np.outer(p, [*z[i], 1.0]).reshape(-1))
        variances.append(np.var(gradients, axis=0))
    mean = (variances[0] + variances[1]) / 2
    return float(np.mean([np.sum((v - mean) ** 2) for v in variances]))


def fast_fishr(z, logits):
    v = gradient_variances(z, logits, LABELS, MEMBER)
    return mean_of((v - mean_of(v, MEMBER)).square().sum(1), MEMBER)


def fast_vrex(logits):
    r = risk_of_each(logits, LABELS, MEMBER)
    return mean_of((r - mean_of(r, MEMBER)).square(), MEMBER)


UNIT = tuple(F.normalize(normal(n, 4, seed=n), dim=1) for n in (5, 6, 9))
HIDDEN = torch.tensor([0.0, 1.0, 0.0, 1.0]).expand(3, 4)
Z, LOGITS, OTHER = normal(12, 4), 2 * normal(12, 3, seed=1), 2 * normal(12, 3, seed=2)
VIEWS = tuple(normal(7, 4, seed=n) for n in range(4))

CASES: dict[str, Case] = {
    "simclr": Case(lambda a, b: nt_xent(a, b, 0.3), slow_nt_xent, VIEWS[:2], True, True),
    "supcon": Case(
        lambda z: sup_con(z, LABELS[:8], 0.3), slow_sup_con, (Z[:8],), False, True, True
    ),
    "moco": Case(
        lambda q, k, queue: info_nce(q, k, queue, 0.3),
        slow_info_nce,
        (UNIT[0], UNIT[1][:5], UNIT[2]),
    ),
    "moco_v3": Case(lambda q, k: two_tau_nce(q, k, 0.2), slow_two_tau, VIEWS[:2], False, True),
    "byol, simsiam": Case(cosine, slow_cosine, VIEWS[:2], True, True, differentiable=1),
    "dino": Case(
        lambda a, b, c: cross_view([a.softmax(1), b.softmax(1)], [a, b, c]),
        slow_cross_view,
        VIEWS[:3],
        True,
    ),
    "swav": Case(
        lambda a, b, c: swapped([sinkhorn(v, 0.5, 3) for v in (a, b)], [a, b, c], 0.1),
        slow_swav,
        VIEWS[:3],
        True,
    ),
    "barlow_twins": Case(lambda a, b: barlow_twins(a, b, 0.3), slow_barlow_twins, VIEWS[:2], True),
    "vicreg": Case(
        lambda a, b: vicreg(a, b, 25.0, 20.0, 1.5), slow_vicreg, (VIEWS[0], 0.6 * VIEWS[1]), True
    ),
    "spectral": Case(spectral, slow_spectral, VIEWS[:2], True),
    "mae": Case(
        lambda told, images: masked_error(told, normalised_patches(images, (2, 2)), HIDDEN),
        slow_mae,
        (normal(3, 4, 8), normal(3, 2, 4, 4)),
        ordered=True,
    ),
    "erm, finetune, lp_ft, noisy_student": Case(
        lambda logits: supervised_loss(logits, LABELS), slow_known, (LOGITS,), ordered=True
    ),
    "mixup": Case(
        lambda logits: mixed_cross_entropy(logits, LABELS, LABELS.roll(3), 0.3),
        slow_mixup,
        (LOGITS,),
        ordered=True,
    ),
    "cdan": Case(fast_cdan, slow_cdan, (Z, LOGITS)),
    "mcd": Case(
        lambda a, b: mean_where(discrepancy(a.softmax(1), b.softmax(1)), UNLABELLED),
        slow_mcd,
        (LOGITS, OTHER),
        swaps=True,
        ordered=True,
    ),
    "mdd": Case(fast_mdd, slow_mdd, (LOGITS, OTHER), ordered=True),
    "vada, dirt_t": Case(
        lambda a, b: divergence_from(a.softmax(1), b).mean(), slow_divergence, (LOGITS, OTHER)
    ),
    "coral": Case(lambda z: coral(z, DOMAINS, 3), slow_coral, (Z,), ordered=True),
    "coral(means=True)": Case(
        lambda z: coral(z, DOMAINS, 3, True), slow_coral_with_means, (Z,), ordered=True
    ),
    "dan": Case(
        lambda z: mmd(gaussians(z), UNLABELLED),
        lambda z: slow_mmd(slow_gaussians(z)),
        (Z,),
        ordered=True,
        held=lambda z, held: slow_mmd(slow_gaussians(z, held)),
    ),
    "jan": Case(fast_jan, slow_jan, (Z, LOGITS), ordered=True, held=slow_jan),
    "afn": Case(
        fast_afn,
        lambda z: slow_afn(z, z),
        (Z,),
        ordered=True,
        held=slow_afn,
    ),
    "afn(radius=1.5)": Case(lambda z: fast_afn(z, radius=1.5), slow_hafn, (Z,), ordered=True),
    "mcc": Case(
        lambda logits: class_confusion(logits, UNLABELLED, 2.5),
        slow_confusion,
        (LOGITS,),
        ordered=True,
        held=slow_confusion,
    ),
    "bnm": Case(
        lambda logits: batch_nuclear_norm(logits, UNLABELLED),
        slow_nuclear_norm,
        (LOGITS,),
        ordered=True,
    ),
    "fixmatch, pseudo_label": Case(
        lambda a, b: confident_cross_entropy(a, b, 0.5).mean(), slow_confident, (LOGITS, OTHER)
    ),
    "sentry": Case(
        lambda weak, *three: selective_entropy(weak, torch.stack(three)).mean(),
        slow_sentry,
        VIEWS,
    ),
    "irm": Case(
        lambda logits: IRM.penalty(None, None, logits, Batch((), LABELS, DOMAINS, 0.5), MEMBER),
        slow_irm,
        (LOGITS,),
        ordered=True,
    ),
    "vrex": Case(fast_vrex, lambda logits: np.var(risks(logits)), (LOGITS,), ordered=True),
    "fishr": Case(fast_fishr, slow_fishr, (Z, LOGITS), ordered=True),
    "group_dro": Case(fast_dro, slow_dro, (LOGITS,), ordered=True, held=slow_dro),
}
