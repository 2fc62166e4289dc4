"""Values, gradients and invariances of every loss, in float64."""

import numpy as np
import pytest
import torch
from losses import CASES, Case

from benchbench.extension.catalog import Wanted, load


def each(wanted=lambda case: True):
    chosen = {name: case for name, case in CASES.items() if wanted(case)}
    return pytest.mark.parametrize("case", chosen.values(), ids=chosen)


SCORED_WITHOUT_ONE = {"rotnet", "dann"}  # cross-entropy with labels of their own: tests of theirs


@each()
def test_a_loss_equals_its_formula_term_by_term(case: Case):
    assert case.difference < 1e-9


@each()
def test_a_gradient_is_that_of_finite_differences(case: Case):
    inputs = [x.clone().requires_grad_() for x in case.inputs]
    count = len(inputs) if case.differentiable is None else case.differentiable
    if case.held is None:
        fixed = [x.detach() for x in inputs[count:]]
        assert torch.autograd.gradcheck(lambda *x: case.ours(*x, *fixed), inputs[:count])
        return
    case.ours(*inputs).backward()  # where a part gets no gradient, that part is held
    arrays = [x.detach().numpy() for x in inputs]
    for number, tensor in enumerate(inputs):
        for place in np.ndindex(*tensor.shape):

            def moved(by, number=number, place=place):
                changed = [array.copy() for array in arrays]
                changed[number][place] += by
                return case.held(*changed, *arrays)

            slope = (moved(1e-5) - moved(-1e-5)) / 2e-5
            assert tensor.grad[place].item() == pytest.approx(slope, abs=1e-7)


@each(lambda case: not case.ordered)
def test_the_order_of_rows_does_not_matter(case: Case):
    order = {n: torch.randperm(n, generator=torch.Generator().manual_seed(2)) for n in range(1, 13)}
    mixed = [x[order[len(x)]] for x in case.inputs]
    assert torch.allclose(case.ours(*mixed), case.ours(*case.inputs), atol=1e-12)


@each(lambda case: case.swaps)
def test_views_may_change_places(case: Case):
    first, second, *rest = case.inputs
    assert torch.allclose(case.ours(second, first, *rest), case.ours(*case.inputs), atol=1e-12)


@each(lambda case: case.scale_free)
def test_the_length_of_a_row_does_not_matter(case: Case):
    generator = torch.Generator().manual_seed(3)
    longer = [x * (0.1 + torch.rand(len(x), 1, generator=generator)) for x in case.inputs]
    assert torch.allclose(case.ours(*longer), case.ours(*case.inputs), atol=1e-12)


def test_every_objective_has_a_transcription():
    named = {name.partition("(")[0] for key in CASES for name in key.split(", ")}
    offered = {name for kind, name in load(Wanted(allowed=())).entries if kind == "objective"}
    assert named | SCORED_WITHOUT_ONE == offered
