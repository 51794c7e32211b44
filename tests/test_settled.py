"""Streams that end when the top channels no longer change."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nodelens import CompositeLens, Lens, MetricLens, Settled
from nodelens.errors import InvalidValueError, NonFiniteError, TooFewRowsError
from nodelens.statistics import Mean
from nodelens.statistics.read import Read
from nodelens.testing.trial import assert_equal


class Watched:
    """Batches that remember how many were asked for."""

    def __init__(self, batches: list[Tensor]) -> None:
        self.batches = batches
        self.asked = 0

    def __iter__(self) -> Iterator[Tensor]:
        for batch in self.batches:
            self.asked += 1
            yield batch


def diagonal(*scales: float) -> nn.Module:
    """One layer, "model", whose channel i is input i times scale i."""
    layer = nn.Linear(len(scales), len(scales), bias=False)
    layer.weight = nn.Parameter(torch.diag(torch.tensor(scales)))
    return layer


def spikes(*order: int, width: int = 4) -> list[Tensor]:
    """Batches in each of which another channel alone is not 0, ever higher."""
    return [torch.eye(width)[[channel]] * 10.0**i for i, channel in enumerate(order)]


def alternating() -> Iterator[Tensor]:
    """Ever larger batches: channels 0 to 2 go together, one at a time the most; 3 is alone."""
    generator = torch.Generator().manual_seed(0)
    for i in range(8):
        shared, batch = torch.randn(2, 200, 4, generator=generator)
        batch[:, i % 3] *= 0.2
        batch[:, :3] += shared[:, :1]
        yield batch * 4.0**i


def run(batches: Any, until: Settled, name: str = "activation_mean", **options: Any) -> Any:
    model = diagonal(*[1.0] * 4)
    return Lens.from_name(name).run(model, batches, progress=False, until=until, **options)


def stopped_after(result: Any) -> int:
    found = re.search(r"^settled after (\d+) batches", "\n".join(result.notes), re.MULTILINE)
    assert found, result.notes
    return int(found[1])


def test_the_stream_ends_after_patience_checks_that_agree():
    batches = Watched(spikes(0, 1, 1, 1, 1, 1, 1, 1))
    result = run(batches, Settled(top=0.25, patience=3))
    # The first check has nothing to be compared with, the second finds another channel on top.
    assert stopped_after(result) == 5
    assert batches.asked == 5
    assert result.rows == {"model": 5}
    assert_equal(result, run(batches.batches[:5], Settled(top=0.25, patience=99)))


def test_a_change_starts_the_count_again():
    assert stopped_after(run(spikes(0, 0, 1, 1, 1, 1, 1), Settled(top=0.25, patience=2))) == 5


def test_checks_are_made_after_every_so_many_batches():
    result = run(spikes(0, 1, *[1] * 20), Settled(top=0.25, patience=3, every=4))
    assert stopped_after(result) == 16


def test_a_stream_that_never_settles_is_read_to_its_end_and_says_so():
    result = run(spikes(0, 1, 2, 3, 0, 1), Settled(top=0.25, patience=2))
    assert result.notes == [
        "not settled after 6 batches, 6 rows: "
        "Settled(top=0.25, tolerance=0.01, patience=2, every=1)"
    ]


def test_the_tolerance_is_a_share_of_the_top_set():
    batches = spikes(0, 1, 2, 3, 0, 1, 2, 3)  # each puts one other channel on top of the old ones
    assert stopped_after(run(batches, Settled(top=0.5, tolerance=0.5, patience=3))) == 4
    assert run(batches, Settled(top=0.5, tolerance=0.49, patience=3)).rows == {"model": 8}


def test_a_score_that_argues_against_a_channel_is_ranked_from_below():
    # Channel 3 always correlates least; which one correlates most changes from batch to batch.
    lens = Lens.from_name("average_redundancy")
    assert lens.score_units("average_redundancy") == ("nat", -1)
    model, until = diagonal(*[1.0] * 4), Settled(top=0.25, patience=2)
    result = lens.run(model, list(alternating()), progress=False, until=until)
    assert stopped_after(result) == 3
    highest = [
        int(lens.run(model, list(alternating())[:n], progress=False)["model"][lens.name].argmax())
        for n in (1, 2, 3)
    ]
    assert len(set(highest)) > 1


def test_ties_keep_their_places():
    batches = [torch.ones(1, 4)] * 10
    assert stopped_after(run(batches, Settled(top=0.5, patience=3))) == 4


def test_every_layer_has_to_agree():
    far, near = torch.tensor([[100.0, 0.0]]), torch.tensor([[100.0, 90.0]])
    batches = [far, far, near, *[near] * 7]
    options: Any = {"progress": False, "until": Settled(patience=2)}
    lens = Lens.from_name("activation_mean")
    # Channel 0 stays the highest of the first layer; in the second, channel 1 comes up.
    both = nn.Sequential(diagonal(1.0, 1.0), diagonal(0.05, 1.0))
    assert stopped_after(lens.run(both[0], batches, **options)) == 3
    assert stopped_after(lens.run(both, batches, **options)) == 5


def test_every_score_has_to_agree():
    calm = torch.tensor([[100.0, 0.0], [99.0, 0.0]])
    wild = torch.tensor([[100.0, 9.0], [100.0, -9.0]])
    batches = [calm, calm, wild, *[calm] * 7]
    names = ("activation_mean", "activation_variance")
    many = CompositeLens([Lens.from_name(name) for name in names])
    # The highest mean is always channel 0's, the highest variance moves to channel 1.
    options: Any = {"progress": False, "until": Settled(patience=2)}
    assert stopped_after(many.lenses[0].run(diagonal(1.0, 1.0), batches, **options)) == 3
    assert stopped_after(many.run(diagonal(1.0, 1.0), batches, **options)) == 5


def test_batches_with_too_few_rows_to_score_are_no_checks():
    batches = [torch.eye(4)[[0]]] * 6
    until = Settled(top=0.25, patience=2)
    lens = Lens.from_name("activation_variance")
    assert lens.minimum_rows == 2  # type: ignore[attr-defined]
    assert stopped_after(run(batches, until, "activation_variance")) == 4
    with pytest.raises(TooFewRowsError):
        run(batches[:1], until, "activation_variance")


def test_progress_is_told_of_the_last_batch():
    seen: list[tuple[int, int]] = []
    Lens.from_name("activation_mean").run(
        diagonal(*[1.0] * 4),
        spikes(*[1] * 8),
        progress=lambda *at: seen.append(at),
        until=Settled(top=0.25, patience=2),
    )
    assert seen == [(1, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize("failing", range(1, 9))
def test_a_run_that_was_stopped_ends_where_the_uninterrupted_one_does(tmp_path: Path, failing: int):
    batches, until = spikes(0, 0, 1, 1, 2, 2, 2, 2, 2, 2), Settled(top=0.25, patience=4, every=1)
    whole = run(batches, until)
    assert stopped_after(whole) == 9

    def breaking() -> Iterator[Tensor]:
        yield from batches[:failing]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(breaking(), until, resume=tmp_path / "s")
    resumed = run(batches, until, resume=tmp_path / "s")
    assert_equal(resumed, whole)
    assert resumed.notes == whole.notes and resumed.rows == whole.rows


def test_a_settled_stream_stays_settled_and_another_rule_counts_anew(tmp_path: Path):
    batches, until = spikes(*[1] * 12), Settled(top=0.25, patience=2)
    options: Any = {"resume": tmp_path / "s"}
    assert [stopped_after(run(batches, until, **options)) for _ in range(2)] == [3, 3]
    assert stopped_after(run(batches, Settled(top=0.3, patience=2), **options)) == 6


class Gappy(MetricLens):
    """The mean of every channel; none, that is NaN, for channel 0."""

    name = "tests.gappy"

    def reads(self, layer: Any) -> dict[str, Read]:
        return {"x": Read("output", Mean)}

    def score(self, statistics: Any, layer: Any) -> Tensor:
        values = statistics["x"].mean().clone()
        values[0] = torch.nan
        return values


def test_a_channel_without_a_score_is_an_error_at_the_first_check():
    with pytest.raises(NonFiniteError, match=r"'model': 1 of 4 values of score 'tests.gappy'"):
        Gappy().run(diagonal(*[1.0] * 4), spikes(1, 2), progress=False, until=Settled())


def test_the_patience_may_be_longer_than_the_stream():
    assert run(spikes(1, 1, 1), Settled(patience=3)).notes[0].startswith("not settled after 3 ")


def test_a_layer_of_one_channel_has_no_ranking_to_wait_for():
    model = nn.Sequential(diagonal(1.0, 1.0), nn.Linear(2, 1, bias=False))
    lens, options = Lens.from_name("activation_mean"), {"progress": False}
    batches = spikes(*[1] * 6, width=2)
    assert stopped_after(lens.run(model, batches, until=Settled(patience=2), **options)) == 3
    with pytest.raises(InvalidValueError, match="no score with channels to rank for until="):
        lens.run(nn.Linear(2, 1), batches, until=Settled(), **options)


def test_a_lens_without_channels_to_rank_is_refused():
    lens = Lens.from_name("ablation", channels={"model": [0]})
    with pytest.raises(InvalidValueError, match="'ablation' has no score with channels to rank"):
        lens.run(diagonal(1.0, 1.0), [torch.ones(2, 2)], progress=False, until=Settled())


def test_anything_but_a_rule_is_refused():
    with pytest.raises(InvalidValueError, match=r"until is 5, expected Settled\(top=..."):
        run(spikes(0), 5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"top": 0}, "top is 0, expected a share between 0 and 1"),
        ({"top": 1.0}, "top is 1.0, expected"),
        ({"top": float("nan")}, "top is nan"),
        ({"top": "5%"}, "top is '5%'"),
        ({"tolerance": -0.1}, "tolerance is -0.1, expected a share from 0 to below 1"),
        ({"tolerance": 1}, "tolerance is 1"),
        ({"patience": 0}, "patience is 0, expected a whole number from 1"),
        ({"patience": 2.0}, "patience is 2.0"),
        ({"every": True}, "every is True"),
    ],
)
def test_a_value_no_check_can_use_is_refused(wrong: dict[str, Any], message: str):
    with pytest.raises(InvalidValueError, match=message):
        Settled(**wrong)


@pytest.mark.parametrize(("channels", "expected"), [(2, 1), (10, 1), (100, 5), (3072, 154)])
def test_the_top_set_is_never_empty_and_never_everything(channels: int, expected: int):
    assert Settled(top=0.05).size(channels) == expected
    assert Settled(top=0.99).size(channels) < channels
