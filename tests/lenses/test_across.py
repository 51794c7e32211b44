"""Lenses of two layers: against whole rows kept, on planted truth, in blocks, behind branches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nodelens import Aggregator, CompositeLens, Lens, LensResult, ModelWrapper
from nodelens.errors import IncompatibleModelError, InvalidValueError, MergeError, ShapeError
from nodelens.metrics import get_metric
from nodelens.metrics.formulas import minmax, uniformity
from nodelens.statistics import CoMoments, CrossLayerMoments, Read, Sample
from nodelens.testing.trial import assert_close, assert_equal
from tests.lenses.networks import CASES, SPLITS, Case
from tests.oracles import across as oracle
from tests.oracles.capture import Array, Captured, capture
from tests.oracles.rows import pixels

NEXT = {
    "mlp": {"0": "2", "2": "4"},
    "conv2d, depthwise": {"0": "1", "1": "3"},
    "conv2d, zeros": {"0": "3"},
    "conv1d": {"0": "3"},
    "padded tokens": {"first": "second"},
}
ORACLES: dict[str, Callable[[Captured, Captured], Array]] = {
    "cross_layer_redundancy": lambda a, b: oracle.downstream(*oracle.paired(a, b)),
    "layer_transition_efficiency": lambda a, b: oracle.transition_efficiency(
        oracle.paired(a, b)[0], oracle.repeated(pixels(a.outputs)), oracle.paired(a, b)[1]
    ),
    "cross_layer_importance": oracle.cross_layer_importance,
    "adaptive_importance": oracle.adaptive_importance,
}


class TwoOfTokens(nn.Module):
    """Two layers on every token, averaged behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.second(torch.tanh(self.first(x))).mean(1)
        return made


PADDED = Case(
    "padded tokens", TwoOfTokens, next(one for one in CASES if one.padded).inputs, padded=True
)


def case(name: str) -> Case:
    return next(one for one in (*CASES, PADDED) if one.name == name)


@cache
def measured(name: str, split: str, dtype: torch.dtype) -> LensResult:
    one = case(name)
    given = [batch for batch, _ in one.batches(SPLITS[split], dtype)]
    lens = CompositeLens([Lens.from_name(lens) for lens in ORACLES])
    return lens.run(one.make(dtype), given, progress=False)


@cache
def seen(name: str) -> Mapping[str, Captured]:
    one = case(name)
    plain = [batch for _, batch in one.batches(SPLITS["ragged"], torch.float64)]
    return capture(one.make(torch.float64), plain)


@pytest.mark.parametrize("lens", ORACLES)
@pytest.mark.parametrize("name", NEXT)
def test_a_lens_agrees_with_whole_rows(name: str, lens: str):
    for split, dtype, near in (("one batch", torch.float32, 2e-5), ("ragged", torch.float64, 1e-9)):
        scores = measured(name, split, dtype).scores(lens)
        assert set(scores) == set(NEXT[name])
        for layer, following in NEXT[name].items():
            expected = ORACLES[lens](seen(name)[layer], seen(name)[following])
            np.testing.assert_allclose(scores[layer].numpy(), expected, rtol=near, atol=near / 10)


class Copy(nn.Module):
    """The second layer repeats channel 0 of the first, and has two channels that are constant."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3)
        with torch.no_grad():
            self.first.weight.copy_(torch.eye(3))
            self.second.weight.zero_()[0, 0] = 2.0

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x))
        return out


def independent(rows: int = 60) -> Tensor:
    """Columns that do not correlate at all."""
    drawn = torch.randn(rows, 3, generator=torch.Generator().manual_seed(0)).double()
    return torch.linalg.qr(drawn - drawn.mean(0)).Q


def test_what_the_next_layer_repeats_is_found_and_what_it_drops_is_not():
    model = Copy().double()
    result = Lens.from_name("cross_layer_redundancy").run(model, [independent()], progress=False)
    copy = -0.5 * np.log(1 - (1 - 1e-4) ** 2)
    expected = torch.tensor([copy / 3, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(
        result["first"]["cross_layer_redundancy"], expected, atol=1e-12, rtol=0
    )
    assert list(result) == ["first"]
    assert any("for 1 pairs of a channel and one of the next layer" in n for n in result.notes)


def test_a_shuffled_next_layer_says_about_nothing():
    """Under no dependence -1/2 log(1 - rho^2) has a mean of about 1 / 2n, its small-sample bias."""
    generator = torch.Generator().manual_seed(3)
    rows, other = (torch.randn(400, 30, generator=generator).double() for _ in range(2))
    seen = CrossLayerMoments.measure(Sample(rows, beside=other))
    information = torch.cat([-0.5 * torch.log(1 - rho.square()) for rho in seen.correlations()])
    assert abs(float(information.mean()) - 1 / 800) < 2e-4


def test_terms_that_are_the_same_for_all_add_nothing():
    assert minmax(torch.tensor([2.0, 2.0, 2.0 + 1e-15]).double()).tolist() == [0, 0, 0]
    assert minmax(torch.tensor([1.0, 3.0, 2.0])).tolist() == [0, 1, 0.5]
    assert uniformity(torch.ones(4)) == 1 == uniformity(torch.zeros(3)) == uniformity(torch.ones(1))
    assert uniformity(torch.tensor([0.0, 0.0, 0.0, 8.0])) == pytest.approx(np.exp(-2))


def test_the_next_layer_counts_only_where_channels_are_of_unlike_size():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 5)), torch.randn(50, 4)
    even, uneven = (
        Lens.from_name("adaptive_importance", threshold=threshold).analyse(model, x)
        for threshold in (0.0, 1.1)
    )
    assert "does not count" in even.notes[0] and not uneven.notes
    within = Lens.from_name(
        "within_layer_importance", weights={"activation": 0.4, "redundancy": -0.25}
    )
    alone = within.analyse(model, x)["0"]["within_layer_importance"]
    torch.testing.assert_close(even["0"]["adaptive_importance"], alone, rtol=1e-12, atol=0)
    assert not torch.allclose(uneven["0"]["adaptive_importance"], alone)


class Attention(nn.Module):
    """Projections side by side, a stream added to in place, one layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.again = nn.Linear(4, 4)
        self.out, self.v, self.k, self.q = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        x += self.out(self.q(x) * self.k(x) + self.v(x))
        x += self.again(x)
        x = self.again(x)
        out: Tensor = self.head(x)
        return out


def test_the_next_layer_is_that_behind_all_that_read_one_tensor():
    wrapper = ModelWrapper(Attention())
    route = wrapper.route(wrapper.prepare_batch(torch.randn(3, 4)))
    behind = {"q": "out", "k": "out", "v": "out", "out": "again", "again": "head"}
    assert route.followers == behind


def test_every_call_is_paired_with_the_next_call_of_the_other_layer():
    torch.manual_seed(0)
    model, x = Attention().double(), torch.randn(40, 4).double()
    found = Lens.from_name("cross_layer_redundancy", layers="again").analyse(model, x)
    calls: dict[str, list[Array]] = {"again": [], "head": []}
    for name in calls:
        hook = lambda m, i, o, name=name: calls[name].append(o.detach().clone().numpy())  # noqa: E731
        getattr(model, name).register_forward_hook(hook)
    model(x)
    rows, other = np.concatenate(calls["again"]), np.concatenate(calls["head"] * 2)
    expected = oracle.downstream(rows, other)
    np.testing.assert_allclose(
        found["again"]["cross_layer_redundancy"].numpy(), expected, rtol=1e-9
    )
    assert found.rows["again"] == 80


def test_another_layer_may_be_named():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    x = torch.randn(30, 4)
    lens = Lens.from_name("cross_layer_redundancy", layers="0", next_layers={"0": "4"})
    rows, other = model[0](x).detach(), model(x).detach()
    expected = oracle.downstream(rows.double().numpy(), other.double().numpy())
    got = lens.analyse(model, x)["0"]["cross_layer_redundancy"]
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-4)


@pytest.mark.parametrize("lens", ORACLES)
@pytest.mark.parametrize("name", NEXT)
def test_plain_tensors_give_what_the_model_gives(name: str, lens: str):
    first, following = next(iter(NEXT[name].items()))
    given, after = seen(name)[first], seen(name)[following]
    found = get_metric(lens).compute(
        outputs=torch.from_numpy(given.outputs),
        weights=given.module.weight.detach(),  # type: ignore[union-attr]
        next_outputs=torch.from_numpy(after.outputs),
    )
    expected = ORACLES[lens](given, after)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-8, atol=1e-9)


def test_names_that_are_no_next_layer_are_refused():
    model, x = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 3)), torch.randn(9, 4)
    with pytest.raises(IncompatibleModelError, match=r"names 'head', and it has no such layer"):
        Lens.from_name("cross_layer_redundancy", next_layers={"0": "head"}).analyse(model, x)
    with pytest.raises(InvalidValueError, match=r"'1' is read beside '0', which .* behind it"):
        Lens.from_name("cross_layer_redundancy", next_layers={"1": "0"}).analyse(model, x)
    with pytest.raises(InvalidValueError, match=r"weights has 'downstrem' \(did you mean 'downst"):
        Lens.from_name("cross_layer_importance", weights={"downstrem": 1.0})
    with pytest.raises(InvalidValueError, match="needs next_outputs= to compute"):
        get_metric("cross_layer_redundancy").compute(outputs=torch.randn(5, 3))
    with pytest.raises(ShapeError, match="4 rows of the next layer for 5 rows"):
        get_metric("cross_layer_redundancy").compute(
            outputs=torch.randn(5, 3), next_outputs=torch.randn(4, 3)
        )
    with pytest.raises(InvalidValueError, match=r"CoMoments beside 'next': a statistic of two"):
        Read("output", CoMoments, beside="next")


def test_a_changed_next_layer_is_no_part_of_the_same_stream():
    values = torch.randn(6, 3)
    first, second = (
        CrossLayerMoments.measure(Sample(values, beside=values, beside_name=name)) for name in "ab"
    )
    with pytest.raises(MergeError, match=r"with layer 'b' after .* with 'a'"):
        first.merge(second)


class Pooling(nn.Module):
    """Tokens, then one vector a text."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.text = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.text(self.tokens(x).tanh()[:, 0])
        return out


def test_tokens_are_averaged_over_what_counts_of_a_text_beside_one_vector_a_text():
    torch.manual_seed(0)
    model, x = Pooling().double(), torch.randn(20, 5, 3).double()
    lengths = torch.arange(20) % 5 + 1
    mask = torch.arange(5) < lengths[:, None]
    # What is padding must not matter, whatever it is.
    x = x.masked_fill(~mask[..., None], 1e6)
    got = Lens.from_name("cross_layer_redundancy").run(
        model, [(x[:7], {"mask": mask[:7]}), (x[7:], {"mask": mask[7:]})], progress=False
    )
    tokens = model.tokens(x).detach().numpy()
    rows = np.stack([t[:n].mean(0) for t, n in zip(tokens, lengths, strict=True)])
    expected = oracle.downstream(rows, model(x).detach().numpy())
    np.testing.assert_allclose(got["tokens"]["cross_layer_redundancy"].numpy(), expected, rtol=1e-9)


class Folded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(3, 4), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.narrow(self.wide(x).view(-1, 8))
        return out


def test_rows_that_are_no_samples_cannot_be_averaged():
    with pytest.raises(ShapeError, match=r"layer 'wide' and what it is read beside have different"):
        Lens.from_name("cross_layer_redundancy").analyse(Folded(), torch.randn(6, 3))


def wide_model() -> tuple[nn.Module, list[Any]]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 40), nn.Tanh(), nn.Linear(40, 30), nn.Tanh(), nn.Linear(30, 4)
    )
    return model.double(), list(torch.randn(40, 6).double().split([13, 27]))


@pytest.mark.parametrize("name", ["cross_layer_redundancy", "layer_transition_efficiency"])
def test_blocks_of_channels_give_what_one_pass_gives(name: str):
    (model, batches), lens = wide_model(), Lens.from_name(name)
    whole = lens.run(model, batches, progress=False)
    budget = lens.plan(model, batches[0]).peak["cpu"] // 4
    plan = lens.plan(model, batches[0], memory_budget=budget)
    assert any(read.block for read in plan.reads) and plan.peak["cpu"] <= budget
    split = lens.run(model, batches, progress=False, memory_budget=budget)
    assert_close(split, whole, 1e-12)
    assert split.notes == whole.notes


def test_the_plan_says_what_is_held_and_what_waits(tmp_path: Any):
    model, batches = wide_model()
    lens = Lens.from_name("cross_layer_redundancy", layers="0")
    aggregator = lens.measure(model, batches, progress=False)
    (read,) = lens.plan(model, batches[1]).reads
    kept = aggregator.statistics["0"][lens.reads(ModelWrapper(model).layers["0"])["next"]]
    assert read.state == sum(t.numel() * 8 for t in kept.state().values())
    assert read.fresh >= 27 * 40 * 8
    aggregator.save(tmp_path / "state.safetensors")
    assert_equal(Aggregator.load(tmp_path / "state.safetensors").result(), aggregator.result())
    assert lens.plan(model).reads[0].state > 0


def test_nothing_is_kept_once_the_later_layer_has_come_by():
    from nodelens.model.gather import gather, plan_reads

    model, batches = wide_model()
    wrapper, lens = ModelWrapper(model), Lens.from_name("cross_layer_redundancy")
    batch = wrapper.prepare_batch(batches[0])
    route = wrapper.route(batch)
    wanted = lens.wanted(wrapper)
    stops = plan_reads(wrapper, route, wanted, [wrapper.layers[name] for name in wanted])
    (gathering,) = wrapper.trace(batch, [lambda: gather(wrapper, batch, stops)])
    assert not gathering.waiting and gathering.outputs is None
