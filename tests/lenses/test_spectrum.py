"""Spectra of layers and groups of channels: known matrices, bounds, references."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nodelens import Aggregator, CompositeLens, Lens
from nodelens.errors import InvalidValueError, MissingTargetsError, UnknownOptionError
from nodelens.metrics import get_metric
from tests.oracles import spectrum as oracle

DOUBLE = torch.float64
LAYER_NUMBERS = ("eigenvalue_entropy", "participation_ratio", "spectral_clustering_score")


def white(rows: int, channels: int) -> Tensor:
    """Rows whose channels have variance 1 and no correlation, exactly."""
    drawn = torch.randn(rows, channels, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    return torch.linalg.qr(drawn - drawn.mean(0)).Q * (rows - 1) ** 0.5


def scores(name: str, outputs: Tensor) -> dict[str, Tensor]:
    model = nn.Linear(outputs.shape[1], outputs.shape[1], bias=False).double()
    nn.init.eye_(model.weight)
    return Lens.from_name(name).analyse(model, outputs)["model"]


@pytest.mark.parametrize(
    ("name", "highest"), [("eigenvalue_entropy", math.log(5)), ("participation_ratio", 5)]
)
def test_white_channels_vary_in_all_directions_alike(name: str, highest: float):
    found = scores(name, white(60, 5))
    assert found[name].shape == () and found[name].item() == pytest.approx(highest, rel=1e-12)
    torch.testing.assert_close(found[f"{name}.share"], torch.full((5,), 0.2, dtype=DOUBLE))


@pytest.mark.parametrize(
    ("name", "lowest"), [("eigenvalue_entropy", 0), ("participation_ratio", 1)]
)
def test_copies_vary_in_one_direction(name: str, lowest: float):
    rows = white(60, 1) @ torch.tensor([[1.0, -2.0, 3.0]], dtype=DOUBLE)
    found = scores(name, rows)
    assert found[name].item() == pytest.approx(lowest, abs=1e-10)
    expected = torch.tensor([1.0, 4.0, 9.0], dtype=DOUBLE) / 14
    torch.testing.assert_close(found[f"{name}.share"], expected)


def test_shares_sum_to_one_and_numbers_stay_within_their_bounds():
    rows = torch.randn(40, 7, dtype=DOUBLE) @ torch.randn(7, 7, dtype=DOUBLE)
    for name, lowest, highest in (
        ("eigenvalue_entropy", 0, math.log(7)),
        ("participation_ratio", 1, 7),
    ):
        found = scores(name, rows)
        assert lowest < found[name] < highest
        assert found[f"{name}.share"].sum().item() == pytest.approx(1)


@pytest.mark.parametrize("name", LAYER_NUMBERS)
@pytest.mark.parametrize("outputs", [torch.ones(9, 4), torch.zeros(9, 4), torch.ones(9, 1)])
def test_layers_in_which_nothing_varies_score_nothing(name: str, outputs: Tensor):
    assert get_metric(name).compute(outputs=outputs.double()).item() == 0


def test_channels_that_do_not_vary_do_not_count():
    rows = torch.randn(40, 5, dtype=DOUBLE)
    dead = torch.cat([rows, torch.full((40, 3), 0.1, dtype=DOUBLE)], 1)
    for name in LAYER_NUMBERS:
        found = [get_metric(name).compute(outputs=outputs) for outputs in (rows, dead)]
        torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


def test_cosines_are_of_the_activations_as_they_are():
    rows = torch.randn(30, 3, dtype=DOUBLE)
    outputs = torch.cat([rows[:, :1], 3 * rows[:, :1], -rows[:, :1]], 1) + 0.0
    found = get_metric("activation_cosine_similarity").compute(outputs=outputs)
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0, -1.0], dtype=DOUBLE))
    shifted = get_metric("activation_cosine_similarity").compute(outputs=rows + 1e3)
    assert (shifted > 0.99).all()
    constant = get_metric("activation_cosine_similarity").compute(
        outputs=torch.tensor([[2.0, 5.0, 0.0]], dtype=DOUBLE).repeat(4, 1)
    )
    torch.testing.assert_close(constant, torch.tensor([0.5, 0.5, 0.0], dtype=DOUBLE))


def test_cosines_do_not_shrink_with_the_batch():
    rows = torch.randn(40, 6) + 0.5
    model = nn.Linear(6, 5)
    lens = Lens.from_name("activation_cosine_similarity")
    whole = lens.analyse(model, rows)["model"][lens.name]
    cut = lens.run(model, rows.split(1), progress=False)["model"][lens.name]
    torch.testing.assert_close(whole, cut, rtol=1e-5, atol=1e-6)
    again = lens.analyse(model, rows.repeat(50, 1))["model"][lens.name]
    torch.testing.assert_close(whole, again, rtol=1e-5, atol=1e-6)


def groups(sizes: list[int], noise: float) -> Tensor:
    """Channels in groups that share one signal each, `(200, channels)`."""
    signals = white(200, len(sizes) + sum(sizes))
    shared = [signals[:, [k]].expand(-1, size) for k, size in enumerate(sizes)]
    return torch.cat(shared, 1) + noise * signals[:, len(sizes) :]


def test_groups_of_copies_have_the_gap_of_complete_graphs():
    found = get_metric("spectral_clustering_score").compute(outputs=groups([4, 4], 0.0))
    assert found.item() == pytest.approx(4 / 3)


def test_clearer_groups_score_higher_and_one_group_nothing():
    metric = get_metric("spectral_clustering_score")
    common, apart = torch.randn(200, 1, dtype=DOUBLE), groups([4, 4, 4], 0.3)
    clear, blurred = (metric.compute(outputs=apart + c * common) for c in (0.2, 1.5))
    assert clear > blurred + 0.1
    assert metric.compute(outputs=groups([8], 0.5)).item() == pytest.approx(0, abs=1e-9)


def test_a_channel_that_is_related_to_none_is_finite():
    outputs = white(30, 4)
    outputs[:, 1] = outputs[:, 0]
    found = get_metric("spectral_clustering_score").compute(outputs=outputs)
    assert 0 <= found <= 2


MODEL = nn.Linear(6, 4).double()
ROWS = torch.randn(50, 6, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))


def overlap(reference: Any, layer: str = "model", **options: Any) -> float:
    lens = Lens.from_name("eigenvalue_alignment")
    found = lens.analyse(MODEL, ROWS, reference={layer: reference}, **options)
    return found["model"][lens.name].item()


def test_the_overlap_with_a_reference_is_that_of_numpy():
    outputs = MODEL(ROWS).detach()
    for given in ([1.0, 2.0, 3.0, 4.0], [1.0, 0.5], [1.0] * 9):
        expected = oracle.overlap(outputs.numpy(), np.array(given))
        assert overlap(torch.tensor(given)) == pytest.approx(expected, rel=1e-9)


def test_a_layer_s_own_covariance_overlaps_wholly_at_any_scale():
    covariance = torch.cov(MODEL(ROWS).detach().T)
    assert overlap(covariance) == pytest.approx(1, rel=1e-12)
    assert overlap(1e6 * torch.linalg.eigvalsh(covariance)) == pytest.approx(1, rel=1e-12)
    assert overlap(torch.tensor([0.0])) == pytest.approx(0, abs=1e-12)


def test_a_missing_or_wrong_reference_is_named():
    lens = Lens.from_name("eigenvalue_alignment")
    with pytest.raises(MissingTargetsError, match="'eigenvalue_alignment' needs reference="):
        lens.analyse(MODEL, ROWS)
    with pytest.raises(MissingTargetsError, match=r"no spectrum of it \(did you mean 'modem'\?\)"):
        overlap(torch.ones(4), "modem")
    with pytest.raises(MissingTargetsError, match="run it on a module"):
        get_metric("eigenvalue_alignment").compute(outputs=ROWS)
    for wrong in ([-1.0, 2.0], [float("nan")], [[1.0, 2.0]], [float("inf")]):
        with pytest.raises(InvalidValueError, match="the reference of layer 'model' has shape"):
            overlap(torch.tensor(wrong))
    with pytest.raises(InvalidValueError, match="reference is a list"):
        lens.analyse(MODEL, ROWS, reference=[1.0])
    with pytest.raises(UnknownOptionError, match="'reference'"):
        lens.analyse(MODEL, ROWS, referense={})


def test_the_reference_is_saved_with_the_statistics(tmp_path):
    lens = Lens.from_name("eigenvalue_alignment")
    reference = {"reference": {"model": torch.rand(4)}}
    expected = lens.analyse(MODEL, ROWS, **reference)["model"][lens.name]
    aggregator = lens.aggregator()
    for found in lens.analyse_batched(MODEL, ROWS.split(10), **reference):
        aggregator.update(found)
    aggregator.save(tmp_path / "state")
    loaded = Aggregator.load(tmp_path / "state").result()["model"][lens.name]
    torch.testing.assert_close(loaded, expected)


def test_a_reference_goes_through_a_composite_and_a_budget():
    alone = Lens.from_name("eigenvalue_alignment")
    options = {"reference": {"model": torch.tensor([3.0, 1.0])}, "progress": False}
    together = CompositeLens([alone, Lens.from_name("average_redundancy")])
    expected = alone.run(MODEL, ROWS.split(10), **options)["model"][alone.name]
    for lens, budget in ((together, None), (alone, "10 MB"), (together, "10 MB")):
        found = lens.run(MODEL, ROWS.split(10), memory_budget=budget, **options)
        assert torch.equal(found["model"][alone.name], expected)
