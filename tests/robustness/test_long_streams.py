"""Five hundred batches leave behind what five leave: live tensors and objects stay flat."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nodelens import CompositeLens, Lens
from nodelens.errors import NonFiniteError
from nodelens.interventions import evaluate
from nodelens.testing.trial import assert_close

BATCHES, EVERY, SETTLED = 500, 50, 1
NAMES = [
    "activation_kurtosis",
    "activation_outlier_index",
    "rayleigh_quotient",
    "average_redundancy",
    "synergy_gaussian_mmi",
    "taylor_saliency",
    "gradient_alignment",
]


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))


def batches(number: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(number):
        yield torch.randn((6, 2, 4, 4), generator=generator), torch.arange(6) % 3


def alive() -> tuple[int, int, int]:
    """Bytes and number of the storages that tensor objects hold, and the number of all objects.

    Tensors must not wait for the garbage collector; of other objects, those it leaves are counted.
    """
    tensors = [found for found in gc.get_objects() if issubclass(type(found), Tensor)]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    del tensors
    gc.collect()
    return sum(storages.values()), len(storages), len(gc.get_objects())


@pytest.fixture
def settled() -> Iterator[list[tuple[int, int, int]]]:
    """What was alive every few batches, with the garbage collector off; checked to be flat."""
    seen: list[tuple[int, int, int]] = []
    gc.collect()
    gc.freeze()
    gc.disable()
    yield seen
    gc.enable()
    gc.unfreeze()


def assert_flat(seen: list[tuple[int, int, int]]) -> None:
    assert len(seen) == BATCHES // EVERY
    tensors = {found[:2] for found in seen[SETTLED:]}
    assert len(tensors) == 1, f"tensors (bytes, storages) grew: {[s[:2] for s in seen]}"
    objects = [found[2] for found in seen[SETTLED:]]
    # An object a batch would be 400 more.
    assert max(objects) - min(objects) < 100, f"objects grew: {objects}"


@pytest.mark.slow
def test_nothing_grows_with_every_lens_at_once(settled: list[Any]):
    lens = CompositeLens([Lens.from_name(name) for name in NAMES])

    def watch(done: int, rows: int) -> None:
        if done % EVERY == 0:
            settled.append(alive())

    result = lens.run(network(), batches(BATCHES), progress=watch)
    assert_flat(settled)
    assert set(result.rows.values()) == {BATCHES * 6 * 9, BATCHES * 6}


@pytest.mark.slow
@pytest.mark.parametrize("channels", [None, {"0": [1], "3": [0]}], ids=["whole", "silenced"])
def test_nothing_grows_while_a_model_is_evaluated(settled: list[Any], channels: Any):
    def watched() -> Iterator[Any]:
        for number, batch in enumerate(batches(BATCHES), start=1):
            yield batch
            if number % EVERY == 0:
                settled.append(alive())

    evaluate(network(), watched(), channels)
    assert_flat(settled)


def test_nothing_grows_over_batches_that_fail(settled: list[Any]):
    model, lens = network(), Lens.from_name("rayleigh_quotient")
    wrong = torch.randn(6, 3, 4, 4)
    for number in range(1, BATCHES + 1):
        with pytest.raises(ValueError, match="expected 2 channels"):
            lens.analyse(model, wrong)
        if number % EVERY == 0:
            settled.append(alive())
    assert_flat(settled)


@pytest.mark.slow
def test_nothing_grows_over_batches_that_fail_behind_their_pass(settled: list[Any]):
    model = network()
    lens = CompositeLens([Lens.from_name(name) for name in NAMES])

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.sum() * float("nan")

    for number, batch in enumerate(batches(BATCHES), start=1):
        with pytest.raises(NonFiniteError):
            lens.run(model, [batch], progress=False, loss=loss)
        if number % EVERY == 0:
            settled.append(alive())
    assert_flat(settled)


@pytest.mark.slow
def test_five_hundred_small_batches_are_one_large_one():
    lens, model = CompositeLens([Lens.from_name(name) for name in NAMES]), network().double()
    parts = [(x.double(), y) for x, y in batches(BATCHES)]
    whole = (torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts]))
    split = lens.run(model, parts, progress=False)
    assert_close(split, lens.run(model, [whole], progress=False), 1e-9)


def test_growth_would_be_noticed(settled: list[Any]):
    kept: list[Tensor] = []
    grow: Callable[[], None] = lambda: kept.append(torch.zeros(3))  # noqa: E731
    for _ in range(BATCHES // EVERY):
        grow()
        settled.append(alive())
    with pytest.raises(AssertionError, match=r"tensors .* grew"):
        assert_flat(settled)
