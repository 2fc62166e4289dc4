"""SimCLR and SupCon where they meet."""

import pytest
import torch
from losses import normal
from toy import TASK, batch_of, built

from benchbench import UNKNOWN, BadInput
from benchbench_contrastive import SimCLR, SupCon, nt_xent, sup_con


def test_where_every_image_has_a_label_of_its_own_supcon_is_simclr():
    z0, z1 = normal(7, 5), normal(7, 5, seed=1)
    both = sup_con(torch.cat([z0, z1]), torch.arange(7).repeat(2), 0.2)
    assert torch.allclose(both, nt_xent(z0, z1, 0.2))


def test_an_image_whose_label_is_hidden_belongs_to_its_other_view_only():
    encoder, objective = built(SupCon)
    plain = SimCLR(encoder, TASK)
    plain.load_state_dict(objective.state_dict())
    batch = batch_of(views=2)
    blind = type(batch)(batch.views, torch.full((12,), UNKNOWN), None, 0.5)
    assert objective(encoder, blind).item() == pytest.approx(plain(encoder, blind).item(), abs=1e-6)
    assert objective(encoder, batch).item() != pytest.approx(plain(encoder, batch).item(), abs=1e-3)


def test_the_log_is_inside_the_mean_over_positives():
    """Khosla et al., section 3.2.2: L_out is at least L_in, by Jensen, and not equal to it."""
    z, labels = normal(8, 5), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    unit = torch.nn.functional.normalize(z, dim=1)
    shares = (unit @ unit.T / 0.2).fill_diagonal_(-torch.inf).softmax(1)
    positive = (labels[:, None] == labels) & ~torch.eye(8).bool()
    outside = -(torch.where(positive, shares, 0).sum(1) / 3).log().mean()
    assert sup_con(z, labels, 0.2) > outside + 0.01


@pytest.mark.parametrize("factory", [SimCLR, SupCon])
def test_a_temperature_is_positive(factory):
    with pytest.raises(BadInput, match="temperature = 0 should be positive"):
        built(factory, temperature=0)
