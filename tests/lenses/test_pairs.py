"""Pairs of channels: partners drawn by seed, and atoms of information about a target."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nodelens import Lens, MetricLens
from nodelens.errors import InvalidValueError
from nodelens.metrics import get_metric
from nodelens.metrics.formulas import mean_pair_information, mean_partner, pair_synergy
from tests.oracles import pairs as oracle

DOUBLE = torch.float64
ATOMS = ("pid_shared", "pid_unique_x", "pid_unique_y", "pid_synergy")
LAYER = nn.Linear(7, 9).double()
INPUTS = torch.randn(60, 7, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
BATCHES = list(INPUTS.split([25, 5, 30]))


def run(name: str, **options):
    return Lens.from_name(name, **options).run(LAYER, BATCHES, progress=False)


def test_partners_drawn_are_those_of_the_seed_and_are_told():
    rows = LAYER(INPUTS).detach().numpy()
    drawn = torch.randperm(9, generator=torch.Generator().manual_seed(3))[:4].numpy()
    result = run("average_redundancy", max_channels=4, seed=3)
    found = result["model"]["average_redundancy"].numpy()
    np.testing.assert_allclose(found, oracle.drawn_partners(rows, drawn), rtol=1e-9)
    assert result.notes == [
        "average_redundancy, layer 'model': partners are 4 of 9 channels, drawn with seed 3: "
        "max_channels=4"
    ]
    layer = run("layer_redundancy", max_channels=4, seed=3)["model"]["layer_redundancy"]
    assert layer.item() == pytest.approx(found.mean(), rel=1e-9)


@pytest.mark.parametrize("name", ["average_redundancy", "layer_redundancy", "node_redundancy"])
def test_as_many_partners_as_channels_are_all_of_them(name: str):
    every, drawn = run(name), run(name, max_channels=9)
    assert torch.equal(every["model"][name], drawn["model"][name]) and drawn.notes == every.notes
    assert not torch.allclose(run(name, max_channels=3)["model"][name], every["model"][name])
    with pytest.raises(InvalidValueError, match="max_channels is 1, expected 2 or more"):
        Lens.from_name(name, max_channels=1)


def test_partners_drawn_take_less_memory():
    wide, few = nn.Linear(4, 1000), get_metric("average_redundancy", max_channels=10)
    state = {lens: lens.plan(wide).bytes["cpu"] for lens in (few, get_metric("average_redundancy"))}
    assert state[few] == 8 * (10 * 1000 + 2 * 1000) and 50 * state[few] < max(state.values())


def test_clamped_pairs_with_partners_drawn_count_once():
    outputs = INPUTS[:, :1].repeat(1, 6)
    layer = nn.Linear(6, 6, bias=False).double()
    nn.init.eye_(layer.weight)
    lens = Lens.from_name("average_redundancy", max_channels=3)
    # Three pairs among the partners, three times three with the others.
    assert "12 pairs of channels have" in lens.analyse(layer, outputs).notes[1]


def test_input_features_have_a_score_each_within_bounds():
    result = run("input_redundancy")
    found = result["model"]["node_redundancy"]
    assert found.shape == (7,) and found.min() >= 0 and found.max() <= 1
    copied = INPUTS.clone()
    copied[:, 2], copied[:, 3] = -copied[:, 1], 5.0
    again = get_metric("node_redundancy").compute(inputs=copied[:, 1:4])
    torch.testing.assert_close(again, torch.tensor([0.5, 0.5, 0.0], dtype=DOUBLE))


def atoms_of(outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    names = (*ATOMS, "interaction_information")
    return {name: get_metric(name).compute(outputs=outputs, targets=targets) for name in names}


def white(channels: int, rows: int = 300) -> Tensor:
    drawn = torch.randn(rows, channels, dtype=DOUBLE)
    return torch.linalg.qr(drawn - drawn.mean(0)).Q * (rows - 1) ** 0.5


def test_atoms_sum_to_the_joint_information():
    outputs, targets = LAYER(INPUTS).detach(), INPUTS[:, :2] + torch.randn(60, 2, dtype=DOUBLE)
    found = atoms_of(outputs, targets)
    joint = oracle.atoms(outputs.numpy(), targets.numpy())["joint"]
    np.testing.assert_allclose(sum(found[name] for name in ATOMS).numpy(), joint, rtol=1e-9)
    assert all((found[name] >= 0).all() for name in ATOMS)
    difference = found["pid_synergy"] - found["pid_shared"]
    torch.testing.assert_close(found["interaction_information"], difference)


def test_a_sum_of_two_channels_is_known_by_both_together():
    a, b, noise = white(3).T
    found = atoms_of(torch.stack([a, b], 1), a + b + 0.5 * noise)
    assert (found["pid_synergy"] > 0.5).all() and (found["interaction_information"] > 0).all()
    assert found["pid_unique_x"].max() < 1e-9


def test_copies_share_all_and_add_nothing():
    a, noise = white(2).T
    found = atoms_of(torch.stack([a, a], 1), a + noise)
    half = torch.full((2,), 0.5 * np.log(2), dtype=DOUBLE)
    torch.testing.assert_close(found["pid_shared"], half)
    torch.testing.assert_close(found["interaction_information"], -half)
    for name in ATOMS[1:]:
        assert found[name].abs().max() < 1e-12


def test_a_silent_channel_leaves_all_to_its_partner():
    a, noise = white(2).T
    found = atoms_of(torch.stack([a, torch.ones_like(a)], 1), a + noise)
    half = 0.5 * np.log(2)
    for name, expected in zip(ATOMS, ([0, 0], [half, 0], [0, half], [0, 0]), strict=True):
        torch.testing.assert_close(found[name], torch.tensor(expected, dtype=DOUBLE))


@pytest.mark.parametrize("name", [*ATOMS, "interaction_information"])
@pytest.mark.parametrize("outputs", [torch.randn(20, 1), torch.ones(20, 3)])
def test_no_partner_and_no_target_that_varies_give_nothing(name: str, outputs: Tensor):
    for targets in (torch.randn(20), torch.zeros(20, dtype=torch.long)):
        if outputs.shape[1] == 1 or targets.dtype == torch.long:
            metric: MetricLens = get_metric(name)
            assert metric.compute(outputs=outputs, targets=targets).abs().max() == 0


def test_shuffled_classes_share_what_chance_gives():
    outputs, labels = torch.randn(2000, 6, dtype=DOUBLE), torch.randint(0, 4, (2000,))
    found = atoms_of(outputs, labels)
    # A squared correlation with one column has the mean 1 / (n - 1), half of it in nats; two
    # predictors have twice that.
    assert sum(found[name].mean() for name in ATOMS) == pytest.approx(1 / 1999, rel=0.6)


@pytest.mark.parametrize("eps", [1e-2, 1e-6])
@pytest.mark.parametrize("start", [0, 3])
def test_all_dimensions_at_once_give_what_each_gives(eps: float, start: int):
    """Many dimensions, copies among the channels, targets that are copies of channels, a block."""
    channels = torch.randn(40, 8, dtype=DOUBLE)
    channels[:, 5], channels[:, 6] = channels[:, 1], 3.0
    targets = torch.cat([channels[:, :3], torch.randn(40, 60, dtype=DOUBLE)], 1)
    table = torch.corrcoef(torch.cat([channels, targets], 1).T).nan_to_num_(0)
    rho, target = table[start:8, :8], table[:8, 8:]
    shares = []
    for column in target.T:
        own = -0.5 * torch.log1p(-column.square().clamp(max=(1 - eps) ** 2))
        better = torch.maximum(own[start:, None], own[None, :])
        pairs = pair_synergy(rho, column, eps, start) + better
        shares.append(mean_partner(pairs, start=start))
    found = mean_pair_information(rho, target, eps, start)
    torch.testing.assert_close(found, torch.stack(shares).mean(0), rtol=1e-9, atol=1e-12)
