"""Two threads on one model: they wait for each other, and each gets what it gets alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nodelens import CompositeLens, Lens, LensResult, ModelWrapper
from nodelens.interventions import evaluate
from nodelens.testing.trial import assert_equal

NAMES = ["rayleigh_quotient", "taylor_saliency", "synergy_gaussian_mmi", "average_redundancy"]
ROUNDS = 4


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(6, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(8, 8),
        nn.Linear(8, 3),
    ).train()


def batches(number: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(number)
    draw = [torch.randn((8, 6), generator=generator) for _ in range(3)]
    return [(x, torch.arange(8) % 3) for x in draw]


def scores(model: Any, number: int) -> LensResult:
    lens = CompositeLens([Lens.from_name(name) for name in NAMES])
    return lens.run(model, batches(number), progress=False)


def silenced(model: Any, number: int) -> LensResult:
    lens = Lens.from_name("ablation", channels={"0": [0, number % 8]})
    return lens.run(model, batches(number), progress=False)


def accuracy(model: Any, number: int) -> LensResult:
    found = evaluate(model, batches(number), {"4": [number % 8]})
    return LensResult({"model": {"loss": torch.tensor([found.loss])}})


def at_once(tasks: list[Callable[[], LensResult]]) -> list[LensResult]:
    """Run every task in a thread of its own, all started at the same moment."""
    ready = threading.Barrier(len(tasks))

    def started(task: Callable[[], LensResult]) -> LensResult:
        ready.wait(timeout=30)
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return [f.result(timeout=60) for f in [pool.submit(started, task) for task in tasks]]


SHARED: dict[str, Callable[[nn.Module], list[Any]]] = {
    "the module itself": lambda model: [model] * 4,
    "one wrapper": lambda model: [ModelWrapper(model)] * 4,
    "a wrapper each": lambda model: [ModelWrapper(model) for _ in range(4)],
    "models of their own": lambda model: [network() for _ in range(4)],
}


@pytest.mark.parametrize("shared", SHARED.values(), ids=SHARED)
def test_threads_get_what_they_get_one_after_the_other(shared: Callable[[nn.Module], list[Any]]):
    work = [scores, silenced, scores, accuracy]
    expected = [task(network(), number) for number, task in enumerate(work)]
    for _ in range(ROUNDS):
        model = network()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        pairs = zip(work, shared(model), strict=True)
        found = at_once(
            [lambda t=t, m=m, n=n: t(m, n) for n, (t, m) in enumerate(pairs)]  # type: ignore[misc]
        )
        for mine, alone in zip(found, expected, strict=True):
            assert_equal(mine, alone)
        assert all(torch.equal(v, before[name]) for name, v in model.state_dict().items())
        assert all(module.training for module in model.modules())
        assert all(p.requires_grad and p.grad is None for p in model.parameters())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_switches_of_the_whole_process_are_put_back():
    assert torch.backends.mha.get_fastpath_enabled()
    state = torch.get_rng_state()
    at_once([lambda n=n: scores(network(), n) for n in range(4)])  # type: ignore[misc]
    assert torch.backends.mha.get_fastpath_enabled()
    torch.manual_seed(1)
    network()
    assert state.shape == torch.get_rng_state().shape


def test_an_error_in_one_thread_is_its_own():
    model = network()
    broken = [(torch.full((8, 6), torch.nan), torch.arange(8) % 3)]
    lens = Lens.from_name("activation_mean")

    def fails() -> LensResult:
        with pytest.raises(ValueError, match="NaN"):
            lens.run(model, broken, progress=False)
        return LensResult({})

    found = at_once([fails, lambda: scores(model, 0), fails, lambda: scores(model, 1)])
    assert_equal(found[1], scores(network(), 0))
    assert_equal(found[3], scores(network(), 1))


def test_a_stream_of_batches_may_itself_be_measured_on_the_way():
    model = network()

    def nested() -> Any:
        for number, batch in enumerate(batches(0)):
            scores(model, number)
            yield batch

    lens = CompositeLens([Lens.from_name(name) for name in NAMES])
    assert_equal(lens.run(model, nested(), progress=False), scores(network(), 0))
