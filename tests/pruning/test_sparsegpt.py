"""SparseGPT against the published algorithm in NumPy, with explicit inverses instead of factors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from nodelens.errors import InvalidValueError, ShapeError
from nodelens.pruning import get_pruning_strategy
from nodelens.pruning.strategies.sparsegpt import surgeon
from tests.pruning.networks import array, caught, ffn, images, maps, rows

WIDTH = 8


def layer_and_inputs(rows: int = 50, dead: bool = False) -> tuple[nn.Linear, torch.Tensor]:
    torch.manual_seed(2)
    layer = nn.Linear(WIDTH, 5).double()
    x = torch.randn(rows, WIDTH, dtype=torch.float64) @ torch.randn(
        WIDTH, WIDTH, dtype=torch.float64
    )
    if dead:
        x[:, 3] = 0
    return layer, x + 0.5


def damped(x: np.ndarray) -> np.ndarray:
    """X^T X, 1 on the diagonal of columns that are all zero, and a part of its mean diagonal."""
    hessian = x.T @ x
    hessian += np.diag(np.diag(hessian) == 0)
    return hessian + 0.01 * np.diag(hessian).mean() * np.eye(len(hessian))


def solved(w: np.ndarray, hessian: np.ndarray, amount: float, block: int, nm=None):
    """The published loop, each column's inverse Hessian taken anew of the columns from it on."""
    w, keep, removed = w.copy(), np.ones(w.shape, bool), 0
    width = w.shape[1]
    inverses = [np.linalg.inv(hessian[j:, j:]) for j in range(width)]
    for start in range(0, width, block):
        stop = min(start + block, width)
        if nm is None:
            cost = np.stack([w[:, j] ** 2 / inverses[j][0, 0] for j in range(start, stop)], 1)
            due = int(np.floor(amount * w.shape[0] * stop + 1e-9)) - removed
            removed += due
            flat = keep[:, start:stop].reshape(-1).copy()
            flat[np.argsort(cost.reshape(-1), kind="stable")[:due]] = False
            keep[:, start:stop] = flat.reshape(cost.shape)
        for j in range(start, stop):
            if nm is not None and j % nm[1] == 0:
                cost = np.stack([w[:, k] ** 2 / inverses[k][0, 0] for k in range(j, j + nm[1])], 1)
                low = np.argsort(cost, 1, kind="stable")[:, : nm[1] - nm[0]]
                np.put_along_axis(keep[:, j : j + nm[1]], low, False, 1)
            error = np.where(keep[:, j], 0, w[:, j]) / inverses[j][0, 0]
            w[:, j:] -= error[:, None] * inverses[j][0][None]
            w[~keep[:, j], j] = 0
    return w, keep


@pytest.mark.parametrize("block", [3, 4, 128])
@pytest.mark.parametrize("amount", [0.0, 0.37, 0.5])
def test_updated_weights_are_those_of_the_published_loop(block, amount):
    layer, x = layer_and_inputs()
    strategy = get_pruning_strategy("sparsegpt", structured=False, block_size=block)
    before = layer.weight.detach().clone()
    found = strategy.updated(layer, x, amount)
    wanted, keep = solved(array(layer.weight), damped(array(x)), amount, block)
    np.testing.assert_array_equal(found.mask.numpy(), keep)
    np.testing.assert_allclose(found.weight.numpy(), wanted, rtol=1e-8, atol=1e-10)
    assert int((~found.mask).sum()) == int(amount * before.numel() + 1e-9)
    assert torch.equal(layer.weight, before), "the user's weights are not written"
    assert torch.equal(strategy.prune(layer, x, amount), found.mask)


def test_two_of_every_four_are_kept_and_corrected():
    layer, x = layer_and_inputs()
    strategy = get_pruning_strategy("sparsegpt", structured=False, nm=(2, 4))
    found = strategy.updated(layer, x)
    wanted, keep = solved(array(layer.weight), damped(array(x)), 0.5, 128, nm=(2, 4))
    np.testing.assert_array_equal(found.mask.numpy(), keep)
    np.testing.assert_allclose(found.weight.numpy(), wanted, rtol=1e-8, atol=1e-10)
    assert bool((found.mask.view(5, 2, 4).sum(2) == 2).all())


def test_correcting_comes_closer_to_the_output_than_masking():
    layer, x = layer_and_inputs()
    layer.requires_grad_(False)
    found = get_pruning_strategy("sparsegpt", structured=False).updated(layer, x, 0.5)
    wanted = x @ layer.weight.T
    corrected = (x @ found.weight.T - wanted).square().sum()
    masked = (x @ (layer.weight * found.mask).T - wanted).square().sum()
    assert float(corrected) < 0.9 * float(masked)


def test_a_column_alone_is_the_closed_form_of_least_squares():
    """With one column removed first, what is left is the ridge solution on the others."""
    _, x = layer_and_inputs()
    w = torch.tensor([[1e-6, 1.0, -2.0, 0.5, 3.0, 1.0, 1.0, 2.0]], dtype=torch.float64)
    hessian = torch.from_numpy(array(x).T @ array(x))
    new, mask = surgeon(w, hessian, 1 / 8)
    assert mask.tolist() == [[False] + [True] * 7]
    h = damped(array(x))
    wanted = array(w) @ h[:, 1:] @ np.linalg.inv(h[1:, 1:])
    np.testing.assert_allclose(new[:, 1:].numpy(), wanted, rtol=1e-9)


def test_the_score_is_the_loss_of_removing_one_weight_by_the_surgeon():
    layer, x = layer_and_inputs()
    strategy = get_pruning_strategy("sparsegpt", structured=False)
    diagonal = np.diag(np.linalg.inv(damped(array(x))))
    wanted = array(layer.weight) ** 2 / diagonal
    np.testing.assert_allclose(strategy.score(layer, x).numpy(), wanted, rtol=1e-8)
    units = get_pruning_strategy("sparsegpt").score_inputs(layer, x)
    np.testing.assert_allclose(units.numpy(), wanted.sum(0), rtol=1e-8)


def test_weights_that_meet_nothing_but_zeros_are_removed_first():
    layer, x = layer_and_inputs(dead=True)
    x = x - 0.5
    strategy = get_pruning_strategy("sparsegpt", structured=False)
    assert float(strategy.score(layer, x)[:, 3].abs().max()) == 0
    found = strategy.updated(layer, x, 5 / 40)
    assert not bool(found.mask[:, 3].any()) and int((~found.mask).sum()) == 5
    torch.testing.assert_close(x @ found.weight.T, x @ layer.weight.T)


def test_a_model_is_updated_from_its_stream_convolutions_too():
    model = maps()
    strategy = get_pruning_strategy("sparsegpt", structured=False, block_size=5)
    found = strategy.updates(model, images(), 0.5, layers=["normed", "grouped"])
    for name, new in found.items():
        x, _ = caught(model, name, images())
        alone = strategy.updated(model.get_submodule(name), x, 0.5)
        torch.testing.assert_close(new.weight, alone.weight)
        assert torch.equal(new.mask, alone.mask) and new.weight.dtype == torch.float64
        assert new.weight.shape == model.get_submodule(name).weight.shape
    x, _ = caught(model, "grouped", images())
    patches = torch.nn.functional.unfold(x[:, 4:], 2).transpose(1, 2).flatten(0, 1)
    dead = (patches == 0).all(0)
    second = array(model.grouped.weight[3:].flatten(1).masked_fill(dead, 0))
    wanted, _ = solved(second, damped(array(patches)), 0.5, 5)
    np.testing.assert_allclose(found["grouped"].weight[3:].flatten(1).numpy(), wanted, rtol=1e-7)


def test_ffn_units_are_scored_by_their_column_over_a_stream():
    model = ffn()
    found = get_pruning_strategy("sparsegpt").scores(model, rows())
    x, _ = caught(model, "blocks.0.down", rows())
    diagonal = np.diag(np.linalg.inv(damped(array(x))))
    wanted = (array(model.blocks[0].down.weight) ** 2 / diagonal).sum(0)
    np.testing.assert_allclose(found["blocks.0.down"].numpy(), wanted, rtol=1e-8)


def test_what_cannot_be_is_refused():
    layer, x = layer_and_inputs()
    with pytest.raises(InvalidValueError, match="structured=False"):
        get_pruning_strategy("sparsegpt").updated(layer, x)
    with pytest.raises(InvalidValueError, match="damping is 0"):
        get_pruning_strategy("sparsegpt", damping=0)
    with pytest.raises(InvalidValueError, match="block_size is 6, expected a multiple of 4"):
        get_pruning_strategy("sparsegpt", structured=False, nm=(2, 4), block_size=6)
    with pytest.raises(ShapeError, match="groups of 3"):
        get_pruning_strategy("sparsegpt", structured=False, nm=(1, 3), block_size=3).updated(
            layer, x
        )
