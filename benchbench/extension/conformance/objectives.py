"""Checks of objectives."""

import copy
from collections import Counter
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchbench.extension.conformance import all_kinds
from benchbench.extension.conformance.fixtures import (
    TASK,
    Broken,
    DeepProbe,
    Probe,
    Skip,
    Subject,
    Trained,
    bars,
    close,
    packed,
    short_run,
    told,
    with_noise,
)
from benchbench.extension.conformance.pretended_gpu import PretendedGpu, Seen
from benchbench.extension.conformance.resumption import resumed_as_uninterrupted
from benchbench.extension.conformance.two_processes import two_processes_as_one
from benchbench.extension.contracts import Batch, Objective, Task, as_read, begun
from benchbench.training.loop import Diverged
from benchbench.training.seeds import derive_seed

READS = {"labels", "domains"}
COLLAPSED = 0.97  # mean cosine of two images' features, where it was lower before training


def built(subject: Subject, seed: int = 0, task: Task = TASK, width: int = 10) -> Any:
    """An encoder and the objective on it."""
    probe = subject.probe  # found by trying, which draws random numbers
    torch.manual_seed(seed)
    encoder = probe(task, width)
    objective = subject.build(encoder, task)
    if isinstance(objective, Objective):  # which check `contract` asks for
        begun(objective, encoder, task)
    return encoder, objective


def loss_of(encoder: Any, objective: Any, batch: Batch, seed: int = 0) -> Tensor:
    """With what it does not read replaced by None, as in training."""
    torch.manual_seed(seed)
    try:
        return objective(encoder, batch)
    except (AttributeError, TypeError) as error:
        hidden = sorted(READS - set(objective.reads))
        if not hidden or "None" not in str(error):
            raise
        raise Broken(
            f"{told(error)}: it uses what is hidden from it; declare reads = "
            f"{{{', '.join(map(repr, sorted(READS)))}}} or leave {' and '.join(hidden)} alone"
        ) from None


def contract(subject: Subject) -> None:
    """An Objective that declares what it reads, and how many views it wants."""
    _, objective = built(subject)
    if not isinstance(objective, Objective):
        kind = type(objective).__name__
        raise Broken(f"the factory returns {kind}; derive it from benchbench.Objective")
    if not set(objective.reads) <= READS:
        unknown = ", ".join(sorted(set(objective.reads) - READS))
        raise Broken(f"it reads {unknown}; there is {', '.join(sorted(READS))}")
    if type(objective.n_views) is not int or objective.n_views < 1:
        raise Broken(f"n_views = {objective.n_views!r}; it is a whole number of at least 1")
    for name in ("n_weak", "n_small"):
        count = getattr(objective, name)
        if type(count) is not int or count < 0:
            raise Broken(f"{name} = {count!r}; it is a whole number of at least 0")
    if objective.begins not in ("fresh", "probe", "head"):
        raise Broken(f'begins = {objective.begins!r}; it is "fresh", "probe" or "head"')
    if not 0 <= float(objective.encoder_lr) < float("inf"):
        raise Broken(f"encoder_lr = {objective.encoder_lr!r}; it is a factor of at least 0")


def loss(subject: Subject) -> None:
    """The loss is one finite number, with what it does not declare hidden from it."""
    encoder, objective = built(subject)
    value = loss_of(encoder, objective, all_kinds.batch_for(objective))
    if not isinstance(value, Tensor):
        raise Broken(f"forward returns {type(value).__name__}, not a tensor; leave .item() out")
    if value.ndim != 0:
        raise Broken(f"the loss has shape {tuple(value.shape)}; take its mean: it is one number")
    if not value.isfinite():
        raise Broken(f"the loss is {value.item()} on an ordinary batch; look for log(0) or 0/0")
    if not value.dtype.is_floating_point:
        raise Broken(f"the loss is {value.dtype}, not a floating point number")


def reaches_encoder(subject: Subject) -> None:
    """The gradient of the loss reaches the encoder's weights, and is finite."""
    encoder, objective = built(subject)
    if objective.encoder_lr == 0:
        raise Skip("encoder_lr is 0: the encoder is frozen")
    value = loss_of(encoder, objective, all_kinds.batch_for(objective))
    if value.requires_grad:
        value.backward()
    gradients = [p.grad for p in encoder.parameters() if p.grad is not None]
    if not any(bool(g.abs().max() > 0) for g in gradients):
        raise Broken(
            "no gradient reaches the encoder; call encoder(view) outside no_grad, and do not "
            "detach its output on every path"
        )
    if not all(bool(g.isfinite().all()) for g in gradients):
        raise Broken("the gradient is not finite on an ordinary batch; look for sqrt(0) or norm(0)")


def input_unchanged(subject: Subject) -> None:
    """Views, labels and domains are not changed in place."""
    encoder, objective = built(subject)
    batch = all_kinds.batch_for(objective)
    before = copy.deepcopy(batch)
    loss_of(encoder, objective, batch)
    pairs = [
        (now, then)
        for kind in ("views", "weak", "small")
        for now, then in zip(getattr(batch, kind), getattr(before, kind), strict=True)
    ]
    pairs += [
        (now, then)
        for now, then in ((batch.labels, before.labels), (batch.domains, before.domains))
        if now is not None and then is not None
    ]
    if not all(torch.equal(now, then) for now, then in pairs):
        raise Broken("it changes its batch in place; work on copies")


def no_target_labels(subject: Subject) -> None:
    """An experiment: trained again with other target labels, it ends at the same weights."""
    pack = packed(bars())
    honest = subject.left(lambda: run(subject))
    poisoned = run(subject, with_noise(pack, pack.domain_names[1]))
    if not honest.same(poisoned.left):
        raise Broken(
            "other labels in the target domain give other weights: target labels leak into "
            "training; read batch.labels and nothing else"
        )


def no_undeclared(subject: Subject) -> None:
    """An experiment: what it does not declare to read, shown, changes no loss."""
    encoder, objective = built(subject)
    hidden = READS - set(objective.reads)
    if not hidden:
        raise Skip("it declares that it reads all there is")
    batch = all_kinds.batch_for(objective)
    rows = len(batch.views[0])
    generator = torch.Generator().manual_seed(3)
    noise: dict[str, Any] = {
        name: torch.randint(0, 3, (rows,), generator=generator) for name in hidden
    }
    twin = copy.deepcopy(encoder), copy.deepcopy(objective)
    blind = loss_of(*twin, batch)
    shown = loss_of(encoder, objective, replace(batch, **noise))
    if not torch.equal(blind, shown):
        names = " and ".join(sorted(hidden))
        raise Broken(f"shown {names}, it computes another loss without declaring reads = {hidden}")


def seeded(subject: Subject) -> None:
    """Training is a function of the seed: the same seed the same bits, another seed others."""
    one = subject.left(lambda: run(subject))
    two, other = run(subject).left, run(subject, seed=1).left
    if not one.same(two):
        raise Broken(
            "two runs of one seed differ; draw with torch's generator alone, and keep no state "
            "outside the objective"
        )
    if one.same(other):
        raise Broken("the seed changes nothing; do not call torch.manual_seed")


def run(subject: Subject, *args: Any, **options: Any) -> Trained:
    return short_run(subject.probe, subject.build, *args, **options)


def resumes(subject: Subject) -> None:
    """Training interrupted at any step and resumed equals training without interruption."""
    whole = subject.left(lambda: run(subject))
    resumed_as_uninterrupted(subject.probe, subject.build, whole)


def state_is_complete(subject: Subject) -> None:
    """A fresh objective with a trained one's state dict has the same loss."""
    trained = subject.trained(lambda: run(subject))
    fresh_encoder, fresh = built(subject, seed=1)
    fresh_encoder.load_state_dict(trained.encoder.state_dict())
    fresh.load_state_dict(trained.objective.state_dict())
    batch = all_kinds.batch_for(fresh)
    then = loss_of(trained.encoder.train(), trained.objective.train(), batch)
    now = loss_of(fresh_encoder.train(), fresh.train(), batch)
    if not close(now, then):
        raise Broken(
            f"after load_state_dict the loss is {now.item():.6g}, not {then.item():.6g}; keep "
            "what it learns in parameters and register_buffer"
        )


def momentum_without_gradient(subject: Subject) -> None:
    """What after_step moves gets no gradient: a momentum branch is a stop-gradient."""
    encoder, objective = built(subject)
    batch = all_kinds.batch_for(objective)
    loss_of(encoder, objective, batch).backward()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1)  # so that an average of it has somewhere to move
    before = {name: p.detach().clone() for name, p in objective.named_parameters()}
    objective.after_step(encoder)
    for name, parameter in objective.named_parameters():
        moved = not torch.equal(parameter, before[name])
        if moved and parameter.grad is not None and bool(parameter.grad.abs().max() > 0):
            raise Broken(
                f"{name} is moved by after_step and gets a gradient too; run the momentum branch "
                "under torch.no_grad() and set requires_grad_(False)"
            )


def trained_encoder(subject: Subject) -> None:
    """``trained_encoder`` returns a module of the encoder's state dict, and changes nothing."""
    encoder, objective = built(subject)
    loss_of(encoder, objective, all_kinds.batch_for(objective)).backward()
    objective.after_step(encoder)
    before = copy.deepcopy((encoder.state_dict(), objective.state_dict()))
    result = objective.trained_encoder(encoder)
    if not isinstance(result, torch.nn.Module):
        raise Broken(f"trained_encoder returns {type(result).__name__}, not a module")
    shapes = [
        {name: value.shape for name, value in module.state_dict().items()}
        for module in (encoder, result)
    ]
    if shapes[0] != shapes[1]:
        names = sorted(set(shapes[0].items()) ^ set(shapes[1].items()))
        raise Broken(
            f"trained_encoder returns a module with another state than the encoder's, such as "
            f"{names[0][0]}; return the encoder, or a copy.deepcopy of it that you moved"
        )
    for now, then in zip((encoder.state_dict(), objective.state_dict()), before, strict=True):
        if not all(torch.equal(now[name], value) for name, value in then.items()):
            raise Broken("trained_encoder changes what is trained; return a module of its own")


def healthy(subject: Subject) -> None:
    """Sixty steps at a common learning rate leave finite losses and features that differ."""
    try:
        probe = DeepProbe if subject.probe is Probe else subject.probe
        trained = short_run(probe, subject.build, steps=subject.long, batch=24, lr=0.03)
    except Diverged as error:
        raise Broken(
            f"{error} of {subject.long}; bound the loss, or normalise what it multiplies"
        ) from None
    if trained.objective.encoder_lr == 0:
        raise Skip("encoder_lr is 0: the encoder is frozen")
    torch.manual_seed(derive_seed(0, "encoder"))
    before, alike = likeness(probe(TASK)), likeness(trained.encoder)
    if alike > COLLAPSED and 1 - alike < (1 - before) / 10:
        raise Broken(
            f"the features collapse: after {subject.long} steps two images have a cosine of "
            f"{alike:.2f} in the mean; repel different images, or stop the gradient on one branch"
        )


def likeness(encoder: Any) -> float:
    """Mean cosine of the features of two images."""
    images = as_read(packed(bars()).inputs[:96])
    with torch.no_grad():
        z = torch.nn.functional.normalize(encoder.eval()(images), dim=1)
    return float(z.mean(0).square().sum())


def order_of_rows(subject: Subject) -> None:
    """The loss does not depend on the order of the rows."""
    encoder, objective = built(subject)
    batch = all_kinds.batch_for(objective)
    order = torch.randperm(len(batch.views[0]), generator=torch.Generator().manual_seed(0))
    mixed = all_kinds.rebuilt(batch, lambda rows: rows[order])
    twin = copy.deepcopy((encoder, objective))
    one, other = loss_of(encoder, objective, batch), loss_of(*twin, mixed)
    if not close(one, other, 1e-3):
        encoder, objective = built(subject)
        again = loss_of(encoder, objective, batch, seed=5)
        if not close(one, again, 1e-6):
            raise Skip("it draws random numbers, so that its rows cannot be compared")
        raise Broken(
            f"the same rows in another order have the loss {other.item():.6g}, not "
            f"{one.item():.6g}; treat every row alike, and pair rows by index within views"
        )


def any_size(subject: Subject) -> None:
    """It takes its sizes from encoder and task: another width, more classes, more domains."""
    task = replace(TASK, num_classes=5, num_domains=4)
    for width in (6, 17):
        try:
            encoder, objective = built(subject, task=task, width=width)
            loss_of(encoder, objective, all_kinds.batch_for(objective, task=task)).backward()
        except (RuntimeError, IndexError, ValueError) as error:
            raise Broken(
                f"with encoder.num_features = {width} and 5 classes {told(error)}; take sizes "
                "from encoder.num_features and task"
            ) from None


def short_batches(subject: Subject) -> None:
    """After batches of 12 a batch of 5 has a finite loss, and so has one without labels."""
    encoder, objective = built(subject)
    loss_of(encoder, objective, all_kinds.batch_for(objective)).backward()
    objective.after_step(encoder)
    small = all_kinds.batch_for(objective, rows=5)
    unlabelled = all_kinds.batch_for(objective)
    if unlabelled.labels is not None:
        unlabelled = replace(unlabelled, labels=torch.full_like(unlabelled.labels, -1))
    for what, batch in (("a batch of 5", small), ("a batch without any label", unlabelled)):
        try:
            value = loss_of(encoder, objective, batch)
        except (RuntimeError, IndexError, ValueError) as error:
            raise Broken(f"{what} after one of 12: {told(error)}; take sizes from batch") from None
        if not value.isfinite():
            raise Broken(
                f"{what} has the loss {value.item()}; divide by clamp(min=1), as "
                "benchbench.supervised_loss does"
            )


def drawn_settings(subject: Subject) -> None:
    """What it lets a suite draw holds its default, and works at both ends."""
    for name, space in subject.entry.searched.items():
        default = subject.entry.options[name]
        if default is not None and not space.low <= default <= space.high:
            raise Broken(
                f"{name} = {default!r} is not between {space.low!r} and {space.high!r}; widen what "
                "searched says"
            )
        for value in (space.low, space.high):
            encoder = subject.probe(TASK, 10)
            objective = begun(subject.build(encoder, TASK, **{name: value}), encoder, TASK)
            found = loss_of(encoder, objective, all_kinds.batch_for(objective))
            if not found.isfinite():
                raise Broken(f"{name} = {value!r} makes the loss {found.item()}; draw from less")


def channels(subject: Subject) -> None:
    """Images of 1, 3 and 4 channels work, or are refused with BadInput when it is built."""

    def attempt(count: int) -> None:
        task = replace(TASK, input_shape=(count, *TASK.input_shape[1:]))
        encoder, objective = built(subject, task=task)
        loss_of(encoder, objective, all_kinds.batch_for(objective, channels=count))

    all_kinds.any_channels(attempt, "support them, or raise BadInput in the factory")


def autocast(subject: Subject) -> None:
    """It works under bf16 autocast, with a loss near that of float32."""
    encoder, objective = built(subject)
    batch = all_kinds.batch_for(objective)
    exact = loss_of(*copy.deepcopy((encoder, objective)), batch)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            coarse = loss_of(encoder, objective, batch)
        coarse.backward()
    except (RuntimeError, ValueError) as error:
        raise Broken(
            f"under bf16 autocast {told(error)}; cast with .float() where types must agree"
        ) from None
    gradients = [p.grad for p in encoder.parameters() if p.grad is not None]
    if not all(bool(g.isfinite().all()) for g in (coarse, *gradients)):
        raise Broken("under bf16 autocast loss or gradient are not finite; compute it in float32")
    if not close(coarse.float(), exact, 0.1):
        raise Broken(
            f"under bf16 autocast the loss is {coarse.item():.4g}, not {exact.item():.4g}; "
            "normalise, exponentiate and sum in float32, under autocast(enabled=False)"
        )


def devices(subject: Subject) -> None:
    """What it computes with lies where the batch lies. Tried on a pretended GPU."""
    all_kinds.on_one_device(subject.rehearsed(lambda gpu: on_gpu(subject, gpu)))


def no_waits(subject: Subject) -> None:
    """A training step never waits for the device to read a value. Tried on a pretended GPU."""
    all_kinds.without_waits(subject.rehearsed(lambda gpu: on_gpu(subject, gpu)))


def on_gpu(subject: Subject, gpu: PretendedGpu) -> Seen:
    """The mixes of three steps and of what follows, and the waits of the second."""
    steps: list[Seen] = []
    trained = run(
        subject,
        steps=3,
        precision="bf16",
        device="cuda",
        watch=lambda done, loss: steps.append(gpu.new()),
    )
    encoder, objective = trained.encoder, trained.objective.eval()
    objective.trained_encoder(encoder)
    if objective.has_head:
        objective.predict(encoder.eval()(torch.rand(4, *TASK.input_shape, device="cuda")))
    steps.append(gpu.new())
    return Seen(sum((seen.mixes for seen in steps), Counter()), steps[1].waits)


def predicts(subject: Subject) -> None:
    """A head gives every row scores of its own, [N, num_classes], the same at every call."""
    _, objective = built(subject)
    if not objective.has_head:
        raise Skip("it has no head: predict is not defined")
    objective.eval()
    z = torch.rand(9, 10, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        scores, again, alone = objective.predict(z), objective.predict(z), objective.predict(z[:4])
    if tuple(scores.shape) != (9, TASK.num_classes):
        raise Broken(f"of 9 rows predict makes {tuple(scores.shape)}, not (9, num_classes)")
    if not torch.equal(scores, again):
        raise Broken("in evaluation two calls of predict differ; turn dropout off in eval()")
    if not close(scores[:4], alone):
        raise Broken("a row's scores depend on the other rows; softmax over dim 1, never dim 0")


def encoder_not_kept(subject: Subject) -> None:
    """It keeps no reference to the encoder, which is handed to forward."""
    encoder, objective = built(subject)
    own = {id(p) for p in encoder.parameters()}
    for name, parameter in objective.named_parameters():
        if id(parameter) in own:
            raise Broken(
                f"{name} is a weight of the encoder, which would be stored and moved twice; use "
                "the encoder that forward gets, or copy.deepcopy it"
            )


def copies(subject: Subject) -> None:
    """It can be copied and pickled, with its state."""
    for what, twin in (("copy.deepcopy", copy.deepcopy), ("pickle", all_kinds.pickled)):
        encoder, objective = built(subject)
        batch = all_kinds.batch_for(objective)
        try:
            other_encoder, other = twin((encoder, objective))
        except Exception as error:
            raise Broken(f"{what}: {told(error)}; keep no lambdas, open files or hooks") from None
        if not close(loss_of(encoder, objective, batch), loss_of(other_encoder, other, batch)):
            raise Broken(f"a copy by {what} has another loss")


def two_processes(subject: Subject) -> None:
    """Two processes (gloo) that share every batch have the losses of one."""
    two_processes_as_one(subject)


CHECKS = (
    contract,
    loss,
    reaches_encoder,
    input_unchanged,
    no_target_labels,
    no_undeclared,
    encoder_not_kept,
    seeded,
    resumes,
    state_is_complete,
    momentum_without_gradient,
    trained_encoder,
    healthy,
    order_of_rows,
    any_size,
    short_batches,
    drawn_settings,
    channels,
    autocast,
    devices,
    no_waits,
    predicts,
    copies,
    two_processes,
)
