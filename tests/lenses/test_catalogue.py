"""Every metric lens through the table of what holds of it: a new lens needs a row."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from importlib import import_module
from math import log
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nodelens import CompositeLens, Lens, LensResult
from nodelens.errors import NonFiniteError
from nodelens.metrics import get_metric, list_metrics
from nodelens.metrics.facts import LensFacts
from nodelens.testing.subjects import TOKENS
from tests.lenses.agreement import ENTRIES
from tests.lenses.catalogue import CHANNELS, CLASSES, ROWS, TABLE, Chance
from tests.lenses.test_closed_forms import nats, planted_correlations, white

DOUBLE = torch.float64
BUILT_IN = [
    name for name in list_metrics() if Lens.named(name).__module__.startswith("nodelens_lenses.")
]


def test_every_metric_has_a_row():
    assert sorted(TABLE) == BUILT_IN


def named(test: str) -> Any:
    where, _, function = test.rpartition(".")
    where = where if where.startswith("tests.") else f"tests.lenses.test_{where}"
    return getattr(import_module(where), function)


@pytest.mark.parametrize("name", TABLE)
def test_what_a_row_names_is_there(name: str):
    row, family = TABLE[name], Lens.named(name).family
    assert all(callable(named(test)) for test in (row.paper, row.plain))
    assert callable(named(row.oracle)) if row.oracle else name in {e.lens for e in ENTRIES}
    assert (row.paper == "catalogue.test_a_case_on_paper") == (name in PAPER)
    # What depends on a second variable says what independence gives, by number or by test.
    second = ("redundancy", "synergy", "higher order", "class-conditional")
    assert row.chance or not (family in second or "targets" in LensFacts.of(name).needs)
    if isinstance(row.chance, str) and row.chance and " " not in row.chance:
        assert callable(named(row.chance))


# Cases on paper

P, Q = torch.tensor([[1.0, 1, -1, -1], [1, -1, 1, -1]], dtype=DOUBLE)
"""Two patterns of four rows: variance 4/3, no correlation."""
COPIES = {
    "inputs": torch.stack([P, 2 * Q], 1),
    "weights": torch.tensor([[1.0, 0], [0, 1], [3, 0]], dtype=DOUBLE),
    "outputs": torch.stack([P, 2 * Q, 3 * P], 1),
    "next_outputs": P[:, None],
}
"""Sizes 1, 2 and 3, quotients 1 to 4 to 1; the first and the last channel repeat each other."""
CHECKS = torch.tensor([[1.0, -1], [-1, 1]], dtype=DOUBLE)
MAPS = {
    "inputs": torch.stack([P[:, None, None].expand(-1, 2, 2), 2 * Q[:, None, None] * CHECKS], 1),
    "weights": torch.eye(2, dtype=DOUBLE)[:, :, None, None],
}
"""A channel that is the same all over the map, and one four times as wide that averages out."""
SPIKE = {"outputs": torch.cat([torch.ones(99, 2), torch.full((1, 2), 100.0)]).double()}
LINE = torch.tensor([[0.0, 5], [0.1, 6], [1, 5], [1.1, 6]], dtype=DOUBLE)
HALF = 0.5 * log(2)


def chained() -> dict[str, Tensor]:
    """Channels a and (a + b) / sqrt 2, and a next one that correlates 0.6 with a."""
    a, b, c = white(3).unbind(1)
    return {"outputs": torch.stack([a, a + b], 1), "next_outputs": (0.6 * a + 0.8 * c)[:, None]}


Case = tuple[Mapping[str, Any], Any, Any]
PAPER: dict[str, list[Case]] = {
    "activation_outlier_index": [
        ({"q": 0.5}, SPIKE, 1 / 1.99),
        ({"q": 1.0}, SPIKE, 100 / 1.99),
    ],
    "rq_patchwise": [({"regularization": 0.0}, MAPS, [0.2, 0.8])],
    "rq_spatial": [({"regularization": 0.0}, MAPS, [0.2, 0.8])],
    "rq_fast": [({"regularization": 0.0}, MAPS, [1.0, 0.0])],
    "layer_redundancy": [
        ({}, lambda: {"outputs": planted_correlations()[1]}, lambda: nats(off_diagonal()).mean())
    ],
    "layer_transition_efficiency": [
        ({}, chained, [float(nats(0.6)) / (1 + HALF), float(nats(0.6 / 2**0.5)) / (1 + HALF)])
    ],
    "within_layer_importance": [({}, COPIES, [-0.4, 0.3, 0.2])],
    "cross_layer_importance": [({}, COPIES, [0.1, 0.325, 0.25])],
    "alignment_minus_redundancy": [({}, COPIES, [-1, 1, -1])],
    "class_informative_score": [
        ({}, {"outputs": LINE, "targets": torch.tensor([0, 0, 1, 1])}, [2.0, 0.0])
    ],
    "weight_magnitude": [
        ({}, {"weights": torch.tensor([[3.0, -4.0], [0, 0]])}, [5.0, 0.0]),
        ({"norm": 1}, {"weights": torch.tensor([[3.0, -4.0], [0, 0]])}, [7.0, 0.0]),
    ],
}


def off_diagonal() -> Tensor:
    rho = planted_correlations()[0]
    return rho[~torch.eye(len(rho), dtype=torch.bool)]


@pytest.mark.parametrize("name", PAPER)
def test_a_case_on_paper(name: str):
    for options, given, expected in PAPER[name]:
        tensors = given() if callable(given) else given
        found = get_metric(name, **options).compute(**tensors)
        wanted = torch.as_tensor(expected() if callable(expected) else expected, dtype=DOUBLE)
        near = 1e-2 if name == "activation_outlier_index" else 1e-8
        torch.testing.assert_close(found, wanted.expand_as(found), rtol=near, atol=1e-12)


def test_classes_that_are_like_all_rows_have_their_norm():
    outputs = torch.randn(3000, 50, dtype=DOUBLE)
    metric = get_metric("conditional_activation_norm")
    found = metric.compute(outputs=outputs, targets=torch.arange(3000) % 3)
    # A size of m normal values is 1 - 1/4m of what it estimates, that of all 1 - 1/12m.
    assert float(found.mean()) == pytest.approx(1 - 1 / 6000, abs=3e-4)


# What chance gives

BY_CHANCE = {name: row.chance for name, row in TABLE.items() if isinstance(row.chance, Chance)}


DRAWS = 24


def independent(targets: str, channels: int, generator: torch.Generator) -> dict[str, Tensor]:
    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=DOUBLE)

    labels = torch.arange(ROWS) % CLASSES
    kinds = {
        "class": labels,
        "number": drawn(ROWS),
        "numbers": drawn(ROWS, 2),
        "class and number": torch.stack([labels.double(), drawn(ROWS)], 1),
    }
    values = {name: drawn(ROWS, channels) for name in ("inputs", "outputs", "next_outputs")}
    return values | ({"targets": kinds[targets]} if targets else {})


@pytest.mark.parametrize(("name", "chance"), BY_CHANCE.items(), ids=list(BY_CHANCE))
def test_independent_channels_score_what_chance_gives(name: str, chance: Chance):
    generator, metric = torch.Generator().manual_seed(0), get_metric(name, **chance.options)
    channels = CHANNELS if metric.family == "higher order" else 100
    drawn = [independent(chance.targets, channels, generator) for _ in range(DRAWS)]
    found = torch.stack([metric.compute(**tensors).mean() for tensors in drawn])
    error = float(found.std()) / DRAWS**0.5
    assert abs(float(found.mean()) - chance.mean) < 3.5 * error, (float(found.mean()), error)
    assert error < max(0.1 * abs(chance.mean), 0.03)


# Units, order and bounds


class Block(nn.Module):
    """What widens and brings back, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.ffn = nn.Sequential(nn.Linear(5, CHANNELS), nn.ReLU(), nn.Linear(CHANNELS, 5))
        self.head = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.head(x + self.ffn(x))
        return made


class Normed(nn.Sequential):
    """A layer, and a BatchNorm whose scale is that of what follows."""

    def __init__(self) -> None:
        norm = nn.BatchNorm1d(CHANNELS)
        nn.init.normal_(norm.weight)
        super().__init__(nn.Linear(5, CHANNELS), norm, nn.Linear(CHANNELS, CLASSES))


NETWORKS = {"attn_": TOKENS.network, "bn_": Normed}
ORDER = torch.tensor([3, 0, 7, 1, 2, 6, 5, 4])
FACTORS = 2.0 ** torch.arange(-3, 5, dtype=DOUBLE)
QUICK = {"metric_space_clustering": {"shuffles": 0}, "cross_layer_halo": {"permutations": 9}}
SPECTRUM = {name: torch.arange(1.0, 5) for name in ("ffn.0", "ffn.2", "head")}


def network(kind: str, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETWORKS.get(kind, Block)().double().eval()


def moved(model: nn.Module, factor: Tensor) -> nn.Module:
    """The same function, its units (or heads) in another order and `factor` times as large."""
    model, order, gain = deepcopy(model), ORDER, factor
    with torch.no_grad():
        if isinstance(model, Block):
            made, _, reader = model.ffn
        elif isinstance(model, Normed):
            made, norm, reader = model.children()
            scale_rows(norm, order, factor)
            gain = torch.ones(())
        else:
            attention, order = model.attention, torch.arange(8).roll(4)
            made, reader = attention.value, attention.output
            for layer in (attention.query, attention.key):
                scale_rows(layer, order, torch.ones(()))
        scale_rows(made, order, gain)
        reader.weight.copy_(reader.weight[:, order] / factor)
    return model


def scale_rows(layer: nn.Module, order: Tensor, factor: Tensor) -> None:
    for tensor in (layer.weight, layer.bias):
        tensor.copy_(torch.einsum("c...,c->c...", tensor[order], factor.expand(len(order))))


def kind_of(name: str) -> str:
    return next((start for start in NETWORKS if name.startswith(start)), "")


def run(lens: Lens, model: nn.Module, before: nn.Module, batch: Any) -> LensResult:
    given = {"initial_weights": before.state_dict(), "reference": SPECTRUM}
    given = {key: value for key, value in given.items() if key in lens.prepare_options()}
    return lens.run(model, [batch], progress=False, **given)


def made(name: str) -> Lens:
    return Lens.from_name(name, **QUICK.get(name, {}))


def of_kind(kind: str) -> CompositeLens:
    return CompositeLens([made(name) for name in BUILT_IN if kind_of(name) == kind])


@cache
def measured(kind: str, factor: float | None) -> LensResult:
    """The scores of all lenses; with a factor (0: one each) of a network moved by it."""
    x = torch.randn(40, 5, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    batch = TOKENS.batch() if kind == "attn_" else (x, torch.arange(40) % CLASSES)
    models = [network(kind, seed) for seed in (0, 1)]
    if factor is not None:
        models = [moved(m, torch.tensor(factor).double() if factor else FACTORS) for m in models]
    return run(of_kind(kind), *models, batch)


@pytest.mark.parametrize("name", TABLE)
def test_scores_follow_the_order_and_the_units_of_channels(name: str):
    row, kind = TABLE[name], kind_of(name)
    layer, order = {"": "ffn.0", "bn_": "0", "attn_": "attention.output"}[kind], ORDER
    if kind == "attn_":
        order = torch.tensor([1, 0])
    elif name.startswith("scar_") or name == "cross_layer_halo":
        layer = "ffn.2"
    for factor in (1.0,) if row.power is None else (1.0, 4.0, *([0.0] if row.each else ())):
        before, after = measured(kind, None)[layer], measured(kind, factor)[layer]
        size = (FACTORS if factor == 0 else torch.tensor(factor).double()) ** (row.power or 0)
        assert name in before, sorted(before)
        for score in [s for s in before if s == name or s.startswith(f"{name}.")]:
            own = before[score].shape == order.shape
            expected = before[score][order] * size if own else before[score]
            torch.testing.assert_close(after[score], expected, rtol=1e-8, atol=1e-10)


LABELS = {
    "one class": [0, 0, 0, 0, 0, 0, 0],
    "a class of one row": [1, 0, 0, 0, 0, 0, 0],
    "hardly two rows each": [0, 0, 1, 1, 2, 2, 0],
}


@cache
def spoiled(labels: str) -> LensResult:
    """Scores of dead, constant and doubled units, on hardly more rows than the lenses ask for."""
    model = network("", 2)
    with torch.no_grad():
        for tensor in (model.ffn[0].weight, model.ffn[0].bias):
            tensor[1], tensor[3] = 0, tensor[2]
        model.ffn[0].weight[4], model.ffn[2].weight[0] = 0, 0
    x = torch.randn(7, 5, dtype=DOUBLE, generator=torch.Generator().manual_seed(3))
    return run(of_kind(""), model, network("", 1), (x, torch.tensor(LABELS[labels])))


@cache
def halved(kind: str) -> LensResult:
    """Scores of a network and a batch in float16; bfloat16 has a check of the contract."""
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)).half()
    batch = TOKENS.batch() if kind == "attn_" else (x, torch.arange(40) % CLASSES)
    return run(of_kind(kind), *(network(kind, seed).half() for seed in (0, 1)), batch)


@pytest.mark.parametrize("name", TABLE)
def test_scores_stay_within_their_bounds(name: str):
    row, kind = TABLE[name], kind_of(name)
    wide = [measured(kind, None), *([] if kind else map(spoiled, LABELS))]
    for result, near in ((halved(kind), 1e-2), *((result, 1e-9) for result in wide)):
        found = [scores[name] for scores in result.values() if name in scores]
        assert found
        for values in found:
            assert values.min() >= row.low - near and values.max() <= row.high + near


# Eigenvalues of what is not finite once were LAPACK's error; the slow tests try all lenses.
DECOMPOSED = ("spectrum", "alignment", "information")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if Lens.named(name).family in DECOMPOSED else pytest.mark.slow)
        for name in TABLE
        if not kind_of(name)
    ],
)
def test_values_too_large_to_square_are_an_error_that_says_so(name: str):
    models = [network("", seed).float() for seed in (0, 1)]
    x = 1e25 * torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    try:
        result = run(made(name), *models, (x, torch.arange(20) % CLASSES))
    except NonFiniteError as error:
        assert repr(name) in str(error) and "layer" in str(error)
    else:
        assert result
