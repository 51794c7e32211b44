"""Memory does not grow with the stream: only merged statistics are kept, nothing waits for gc."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Iterator
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor

from nodelens import CompositeLens, Lens, ModelWrapper
from nodelens.interventions import evaluate
from nodelens.statistics import Sample
from nodelens.testing.trial import Trial

# One worker, so that what is made for all tests is made once.
pytestmark = pytest.mark.xdist_group("memory")

BATCHES, SETTLED, EVERY = 50, 1, 5


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def collector_off() -> Iterator[None]:
    """Garbage in cycles stays; what was there before is left out of the count."""
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


def live_bytes() -> tuple[int, int]:
    """Bytes of all storages that a tensor object made since holds, and how many there are."""
    storages = {
        storage.data_ptr(): storage.nbytes()
        for found in gc.get_objects()
        if issubclass(type(found), Tensor)
        for storage in [found.untyped_storage()]
    }
    return sum(storages.values()), len(storages)


def stream(trial: Trial) -> Iterator[Any]:
    for _ in range(BATCHES):
        yield trial.batch(4)


def measured(lens: Lens, model: Any, batches: Any, options: Any) -> list[tuple[int, int]]:
    """What is alive after every few batches of a run."""
    aggregator, seen = lens.aggregator(), []
    for statistics in lens.analyse_batched(model, batches, **options):
        aggregator.update(statistics)
        del statistics
        if aggregator.batches % EVERY == 0:
            seen.append(live_bytes())
    assert aggregator.batches == BATCHES
    return seen


def assert_flat(seen: list[tuple[int, int]]) -> None:
    settled = seen[SETTLED]
    assert set(seen[SETTLED:]) == {settled}, f"{settled} grew to {seen[-1]} (bytes, storages)"


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (4, 3, 5, 5)], ids=str)
def test_a_sample_goes_without_the_collector(shape: tuple[int, ...], collector_off):
    sample = Sample(torch.ones(shape))
    assert sample.flat.total.tolist() == [4.0 * prod(shape[2:])] * 3
    alive = weakref.ref(sample)
    del sample
    assert alive() is None


@pytest.mark.slow
@pytest.mark.parametrize("name", Lens.names())
def test_live_tensors_stay_flat_over_a_stream(name: str, collector_off):
    trial = Trial(name)
    model = trial.model()
    lens, options = trial.lens(model)
    assert_flat(measured(lens, model, stream(trial), options))


@pytest.mark.slow
def test_live_tensors_stay_flat_with_every_lens_at_once(collector_off):
    trial = Trial("rayleigh_quotient")
    model = trial.model()
    trial.lens(model)
    wrapped = ModelWrapper(model)
    made = [Lens.named(name).example(wrapped) for name in Lens.names()]
    lenses = [(lens, own) for lens, own in made if not lens.edits and lens.is_compatible(model)]
    options = {name: value for _, own in lenses for name, value in own.items()}
    composite = CompositeLens([lens for lens, _ in lenses])
    assert_flat(measured(composite, model, stream(trial), options))


@pytest.mark.parametrize("channels", [None, {"grouped": [0, 1], "twice": [3]}])
def test_live_tensors_stay_flat_while_a_model_is_evaluated(channels, collector_off):
    trial = Trial("rayleigh_quotient")
    model, seen = trial.model(), []

    def watched() -> Iterator[Any]:
        for number, batch in enumerate(stream(trial)):
            yield batch
            if number % EVERY == 0:
                seen.append(live_bytes())

    evaluate(model, watched(), channels)
    assert_flat(seen)


def test_a_leak_would_be_noticed(collector_off):
    class Leaky:
        def __init__(self) -> None:
            self.itself, self.kept = self, torch.zeros(10)

    before, _ = live_bytes()
    Leaky()
    assert live_bytes()[0] == before + 40


PEAK = """
    import gc, resource, sys
    import torch
    from torch import nn
    from nodelens import CompositeLens, Lens

    torch.set_num_threads(1)
    gc.disable()
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(),
                          nn.Linear(256, 5))
    names = ["activation_kurtosis", "activation_outlier_index", "rayleigh_quotient",
             "average_redundancy", "mutual_information_gaussian", "synergy_gaussian_mmi",
             "taylor_saliency", "gradient_alignment"]
    lens = CompositeLens([Lens.from_name(name) for name in names])

    def stream(number):
        for _ in range(number):
            yield torch.randn(2048, 64), torch.randint(0, 5, (2048,))

    def peak():
        size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return size if sys.platform == "darwin" else size * 1024

    lens.run(model, stream(2), progress=False)
    for number in (3, 12):
        lens.run(model, stream(number), progress=False)
        print(peak())
"""


@pytest.mark.slow
def test_the_peak_is_the_same_for_four_times_the_data():
    # Freed tensors go back to the system at once: the peak is then that of what was alive.
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PEAK)],
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
        capture_output=True,
        text=True,
        check=True,
    )
    once, four_times = map(int, done.stdout.split())
    # A hidden layer's activations are 2 MB a batch: nine more of one would show.
    assert four_times - once < 4 * 2**20, f"{(four_times - once) / 2**20:.1f} MB more"
