"""When a run saves, and what it refuses to go on with."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from nodelens import Aggregator, Lens
from nodelens.checkpoint import differences
from nodelens.errors import MergeError, OutputError
from nodelens.model.fingerprint import model_fingerprint
from nodelens.testing.trial import assert_equal


def network(width: int = 4, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, width), nn.BatchNorm1d(width), nn.Linear(width, 3)).to(dtype)


def stream(batches: int = 6) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(7, 5, generator=generator) for _ in range(batches)]


def run(model: nn.Module, given: list[torch.Tensor], path: Path | None, **options):
    lens = Lens.from_name("activation_mean")
    return lens.run(model, given, progress=False, resume=path, **options)


@pytest.fixture
def saves(monkeypatch) -> list[int]:
    """How many batches each state held that was saved while the test lasts."""
    numbers, save = [], Aggregator.save

    def noted(self, *arguments, **options):
        numbers.append(self.batches)
        save(self, *arguments, **options)

    monkeypatch.setattr(Aggregator, "save", noted)
    return numbers


def test_a_run_saves_after_so_many_batches_or_seconds(saves, tmp_path, monkeypatch):
    run(network(), stream(), tmp_path / "batches", save_every=4)
    assert saves == [4, 6]
    saves.clear()
    clock = [0.0]

    def slow():
        for batch in stream():
            clock[0] += 3
            yield batch

    monkeypatch.setattr("nodelens.checkpoint.time.monotonic", lambda: clock[0])
    run(network(), slow(), tmp_path / "seconds", save_every_seconds=5)
    assert saves == [2, 4, 6]
    run(network(), slow(), tmp_path / "seconds", save_every_seconds=5)
    assert saves == [2, 4, 6], "nothing new, nothing saved"


def test_another_model_is_refused_and_told_apart_from_other_weights(tmp_path):
    run(network(), stream(2), tmp_path / "s")
    before = (tmp_path / "s").read_bytes()
    with pytest.raises(MergeError, match=r"'.*s' was measured .*: model\.layers was .*; model"):
        run(network(width=6), stream(), tmp_path / "s")
    model = network()
    with torch.no_grad():
        model[2].bias[1] += 1e-6
    with pytest.raises(MergeError, match=r"measured with something else: model\.weights was '\w+'"):
        run(model, stream(), tmp_path / "s")
    assert (tmp_path / "s").read_bytes() == before
    assert_equal(run(network(), stream(), tmp_path / "s"), run(network(), stream(), None))


def test_facts_of_the_caller_are_held_to(tmp_path):
    run(network(), stream(2), tmp_path / "s", about={"data": "abc"})
    with pytest.raises(MergeError, match="data was 'abc', is 'abd'"):
        run(network(), stream(), tmp_path / "s", about={"data": "abd"})
    assert Aggregator.facts(tmp_path / "s")["data"] == "abc"
    run(network(), stream(), tmp_path / "s")


def test_a_state_from_before_there_were_facts_goes_on(tmp_path):
    lens = Lens.from_name("activation_mean")
    lens.measure(network(), stream(2), progress=False).save(tmp_path / "s")
    assert_equal(run(network(), stream(), tmp_path / "s"), run(network(), stream(), None))


@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_a_full_disk_is_an_error_of_ours_and_the_last_state_stays(tmp_path, monkeypatch, step):
    original, calls = getattr(os, step), [0]

    def full(*arguments):
        calls[0] += 1
        if calls[0] >= 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, step, full)
        with pytest.raises(OutputError, match=r"cannot write '.*s': No space left on device"):
            run(network(), stream(), tmp_path / "s", save_every=1)
    assert calls == [3]
    assert Aggregator.load(tmp_path / "s").batches == 2
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
    assert_equal(run(network(), stream(), tmp_path / "s"), run(network(), stream(), None))


def test_a_disk_that_is_full_in_the_middle_of_a_write_leaves_the_last_state(tmp_path):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    run(network(), stream(2), tmp_path / "s", save_every=1)
    size = (tmp_path / "s").stat().st_size
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, before[1]))
        with pytest.raises(OutputError, match=r"cannot write '.*s': .*File too large"):
            run(network(), stream(), tmp_path / "s", save_every=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert Aggregator.load(tmp_path / "s").batches == 2
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_folder_that_vanishes_is_not_made_anew(tmp_path):
    folder = tmp_path / "states"

    def vanishing():
        for number, batch in enumerate(stream()):
            if number == 3:
                folder.rename(tmp_path / "elsewhere")
            yield batch

    with pytest.raises(OutputError, match=r"cannot write '.*s': No such file or directory"):
        run(network(), vanishing(), folder / "s", save_every=1)
    assert not folder.exists()
    assert Aggregator.load(tmp_path / "elsewhere/s").batches == 3


def test_differences_are_named():
    saved = {"a": 1, "b": {"c": [1], "d": 2}, "old": 0}
    assert differences(saved, saved) == []
    assert differences(saved, {"a": 1, "b": {"c": [2], "e": 3}, "new": 0}) == [
        "b.c was [1], is [2]",
        "b.d was 2, is None",
        "b.e was None, is 3",
    ]


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str
)
def test_one_weight_of_many_changes_the_fingerprint(dtype):
    model = nn.Linear(300, 100).to(dtype)
    before = model_fingerprint(model)
    assert model_fingerprint(model) == before
    with torch.no_grad():
        model.weight[57, 123] += 1
    after = model_fingerprint(model)
    assert after["layers"] == before["layers"] and after["weights"] != before["weights"]


def test_the_fingerprint_sees_buffers_types_swaps_and_odd_tensors():
    model = network()
    seen = {model_fingerprint(model)["weights"]}
    model[1].running_mean[0] = 0.5
    seen.add(model_fingerprint(model)["weights"])
    model[2].weight.data = model[2].weight.data.flip(0)
    seen.add(model_fingerprint(model)["weights"])
    assert len(seen) == 3
    assert model_fingerprint(network(dtype=torch.float16)) != model_fingerprint(network())
    model.register_buffer("phase", torch.ones(3, dtype=torch.complex64))
    model.register_buffer("mask", torch.ones(3, dtype=torch.bool))
    model.register_buffer("empty", torch.ones(0))
    model.register_buffer("absent", torch.ones(3, device="meta"))
    assert model_fingerprint(model) == model_fingerprint(model)
