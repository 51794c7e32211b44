"""A run that a budget splits gives what one pass gives, bit for bit, and keeps to the budget."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from nodelens import CompositeLens, Lens, LensResult, MetricLens
from nodelens.errors import InvalidValueError
from nodelens.testing.trial import assert_close, assert_equal
from tests.plan.conftest import Setting, cnn, mlp

HOW_MANY = pytest.mark.parametrize(
    "chosen",
    [
        pytest.param(slice(3, None, 9), id="one in nine"),
        pytest.param(slice(None), id="all", marks=pytest.mark.slow),
    ],
)
WITH_EVERYTHING = pytest.mark.parametrize(
    "setting",
    [pytest.param(cnn, marks=pytest.mark.slow), mlp],
    ids=["cnn", "mlp"],
    indirect=True,
)


def split(lens: Lens, setting: Setting, budget: int, **more: Any) -> LensResult:
    options = setting.options if "initial_weights" in lens.prepare_options() else {}
    return lens.run(
        setting.model, setting.batches, progress=False, memory_budget=budget, **options, **more
    )


def whole(lens: Lens, setting: Setting) -> LensResult:
    options = setting.options if "initial_weights" in lens.prepare_options() else {}
    return lens.run(setting.model, setting.batches, progress=False, **options)


def planned(lens: Lens, setting: Setting, budget: int | None = None) -> Any:
    options = setting.options if "initial_weights" in lens.prepare_options() else {}
    return lens.plan(setting.model, setting.batches[0], memory_budget=budget, **options)


def by_layer(lens: Lens, setting: Setting) -> int:
    """The least budget under which no layer of a single lens need be cut into blocks."""
    sizes = []
    for layer in planned(lens, setting).layers:
        one = type(lens)(**{**lens.params, "pattern": None, "layers": [layer]})
        sizes.append(planned(one, setting).peak["cpu"])
    return max(sizes)


def least(lens: Lens, setting: Setting) -> int:
    """The least budget that would do, as the error says it."""
    with pytest.raises(InvalidValueError, match="takes at least") as caught:
        planned(lens, setting, 1)
    return int(str(caught.value).split("(")[1].split(" bytes")[0])


def in_blocks(lens: Lens, setting: Setting) -> int:
    """A budget under which the largest layer has to be cut into blocks of channels."""
    return (least(lens, setting) + by_layer(lens, setting)) // 2


def assert_same(found: LensResult, expected: LensResult) -> None:
    """Everything a result holds, in the same order, its scores bit for bit."""
    assert_equal(found, expected)
    assert list(found) == list(expected)
    assert [list(scores) for scores in found.values()] == [list(s) for s in expected.values()]
    for name in ("lens", "params", "units", "importance", "rows", "notes"):
        assert getattr(found, name) == getattr(expected, name), name


@HOW_MANY
def test_every_lens_scores_the_same_in_passes_layer_by_layer(setting, chosen):
    for lens in setting.lenses()[chosen]:
        budget = by_layer(lens, setting)
        plan = planned(lens, setting, budget)
        # Two layers of one lens do not fit together unless both are far below the largest.
        assert len(plan.passes) > 1 or len(plan.layers) < 2, lens
        assert all(read.block is None for read in plan.reads)
        assert max(each.peak["cpu"] for each in plan.passes) <= budget
        assert_same(split(lens, setting, budget), whole(lens, setting))


@WITH_EVERYTHING
def test_all_lenses_together_score_the_same_in_passes_lens_by_lens(setting):
    lens = setting.everything()
    budget = least(lens, setting)
    while any(read.block for read in planned(lens, setting, budget).reads):
        budget += budget // 16  # blocks have products of other shapes, and tests of their own
    plan = planned(lens, setting, budget)
    layers = [layer for each in plan.passes for layer in each.layers]
    assert len(layers) > len(set(layers)), "some layer is read in two passes"
    assert_same(split(lens, setting, budget), whole(lens, setting))


PAIRWISE = [
    ("average_redundancy", {}),
    ("average_redundancy", {"site": "input"}),
    ("pairwise_redundancy_gaussian", {"matrix": True}),
    ("pairwise_redundancy_gaussian", {"partners": "nearest", "k": 3, "matrix": True}),
    ("pairwise_redundancy_gaussian", {"partners": "random", "k": 3}),
    ("gaussian_pid_synergy_mmi", {}),
    ("synergy_gaussian_mmi", {}),
]


@pytest.mark.parametrize(("name", "options"), PAIRWISE, ids=str)
@pytest.mark.parametrize("make", [cnn, mlp])
def test_blocks_of_channels_score_as_the_whole_does(name, options, make):
    setting = make()
    setting.model.double()
    batches = [(x.double(), y) for x, y in setting.batches]
    _make_a_copy(setting.model)
    setting = Setting(setting.model, batches)
    lens = Lens.from_name(name, **options)
    budget = in_blocks(lens, setting)
    plan = planned(lens, setting, budget)
    assert any(read.block is not None and read.block[0] > 0 for read in plan.reads)
    found, expected = split(lens, setting, budget), whole(lens, setting)
    assert_close(found, expected, 1e-12)
    assert found.notes == expected.notes and found.rows == expected.rows
    if "redundancy" in name and options.get("site") != "input":
        assert any("1 pair of channels" in note for note in expected.notes)


def _make_a_copy(model: nn.Module) -> None:
    """The first and last channels of the first layer are copies: blocks must not part them."""
    with torch.no_grad():
        for values in (model[0].weight, model[0].bias):
            values[-1] = values[0] * -2


@pytest.mark.parametrize("name", ["average_redundancy", "synergy_gaussian_mmi"])
def test_in_float32_blocks_find_the_same_copies(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 700))
    with torch.no_grad():
        model[0].weight[350:] = model[0].weight[:350]
        model[0].bias[350:] = model[0].bias[:350]
    x, y = torch.randn(3000, 16) + 5, torch.arange(3000) % 3
    setting = Setting(model, list(zip(x.split(300), y.split(300), strict=True)))
    lens = Lens.from_name(name)
    budget = in_blocks(lens, setting)
    assert len(planned(lens, setting, budget).passes) > 1
    found, expected = split(lens, setting, budget), whole(lens, setting)
    assert found.notes == expected.notes
    assert_close(found, expected, 1e-5)


def test_two_lenses_of_the_same_pairs_share_their_blocks():
    setting = mlp()
    names = ["average_redundancy", "pairwise_redundancy_gaussian"]
    lens = CompositeLens([Lens.from_name(name) for name in names])
    budget = in_blocks(lens.lenses[0], setting)
    plan = planned(lens, setting, budget)
    blocks = [(read.layer, read.block) for read in plan.reads if read.block]
    assert blocks and len(blocks) == len(set(blocks)), "each block is measured once"
    assert_close(split(lens, setting, budget), whole(lens, setting), 1e-12)


def test_a_lens_with_code_of_its_own_runs_besides(setting):
    class Plain(Lens):
        name = "tests.plain"

        def _intervene(self, model, **kwargs):
            from nodelens.statistics import Mean, Sample

            values = model.envoy(model.names[0]).output.flatten(2 if model.names[0] == "x" else 1)
            return {model.names[0]: {"value": Mean.measure(Sample(values.detach()))}}

    lens = CompositeLens([Lens.from_name("activation_outlier_index"), Plain()])
    budget = by_layer(lens.lenses[0], setting)
    assert len(planned(lens, setting, budget).passes) > 1
    assert_same(split(lens, setting, budget), whole(lens, setting))


@WITH_EVERYTHING
def test_a_generator_is_refused_where_one_pass_is_not_enough(setting):
    lens = setting.everything()
    needed = planned(lens, setting).peak["cpu"]
    options = {**setting.options, "progress": False}

    def stream() -> Iterator[Any]:
        yield from setting.batches

    message = rf"takes 2 passes over .* a generator can be read once.* memory_budget={needed} "
    with pytest.raises(InvalidValueError, match=message):
        lens.run(setting.model, stream(), memory_budget=needed - 1, **options)
    found = lens.run(setting.model, stream(), memory_budget=needed, **options)
    assert_same(found, whole(lens, setting))


def test_batches_that_are_gone_the_second_time_are_refused(setting):
    class Once:
        def __init__(self) -> None:
            self.left = [*setting.batches[:1], *setting.batches]

        def __iter__(self) -> Iterator[Any]:
            while self.left:
                yield self.left.pop(0)

    lens = Lens.from_name("activation_outlier_index")
    with pytest.raises(
        InvalidValueError, match="second pass over the batches brought 0, the first 3"
    ):
        lens.run(setting.model, Once(), progress=False, memory_budget=by_layer(lens, setting))


@HOW_MANY
def test_an_impossible_budget_says_the_least_that_would_do(setting, chosen):
    for lens in setting.lenses()[chosen]:
        budget = least(lens, setting)
        assert planned(lens, setting, budget).peak["cpu"] <= budget
        with pytest.raises(InvalidValueError, match=f"{lens.name!r} on layer .*takes at least"):
            planned(lens, setting, budget - 1)
        assert_close(split(lens, setting, budget), whole(lens, setting), 1e-5)


def test_a_shuffled_loader_brings_the_same_batches_in_every_pass(setting):
    inputs, classes = (torch.cat(parts) for parts in zip(*setting.batches, strict=True))
    data, lens = TensorDataset(inputs, classes), Lens.from_name("activation_outlier_index")
    seen: list[Tensor] = []

    def noted(rows: Any) -> Any:
        batch = torch.utils.data.default_collate(rows)
        seen.append(batch[1])
        return batch

    for generator in (None, torch.Generator().manual_seed(3)):
        seen.clear()
        loader = DataLoader(data, 6, shuffle=True, generator=generator, collate_fn=noted)
        lens.run(setting.model, loader, progress=False, memory_budget=by_layer(lens, setting))
        first, *rest = seen
        passes = [torch.cat(rest[at : at + 4]).tolist() for at in range(0, len(rest), 4)]
        assert len(passes) > 1 and all(each == passes[0] for each in passes)
        assert first.tolist() == passes[0][:6]


def test_every_pass_resumes_from_its_own_file(setting, tmp_path):
    lens, path = Lens.from_name("activation_outlier_index"), tmp_path / "state.safetensors"
    budget = by_layer(lens, setting)
    passes = len(planned(lens, setting, budget).passes)
    expected = split(lens, setting, budget, resume=path)
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == [f"state.pass-{at}-of-{passes}.safetensors" for at in range(1, passes + 1)]
    assert_same(split(lens, setting, budget, resume=path), expected)
    assert_same(expected, whole(lens, setting))


def test_the_statistics_of_a_pass_are_gone_before_the_next(monkeypatch):
    setting = mlp()
    lens = Lens.from_name("activation_outlier_index")
    budget, most = by_layer(lens, setting), []
    score = type(lens).score

    def watched(self: MetricLens, statistics: Any, layer: Any) -> Tensor:
        gc.collect()
        from nodelens.statistics import QuantileSketch

        alive = [s for s in gc.get_objects() if type(s) is QuantileSketch]
        most.append(sum(s.counts.untyped_storage().nbytes() for s in alive))
        return score(self, statistics, layer)

    monkeypatch.setattr(type(lens), "score", watched)
    # What was there before need not be looked through again and again.
    gc.freeze()
    split(lens, setting, budget)
    assert len(most) > 1 and max(most) <= budget


@WITH_EVERYTHING
def test_too_little_memory_is_an_error_that_says_what_to_do(setting, monkeypatch):
    lens = setting.everything()
    held = planned(lens, setting).bytes["cpu"]
    room = held
    monkeypatch.setattr("nodelens.model.costs.available", lambda device: room)
    with pytest.raises(InvalidValueError, match=r"statistics on cpu.*memory_budget=.*layers="):
        whole(lens, setting)
    assert split(lens, setting, least(lens, setting))
    monkeypatch.setattr("nodelens.model.costs.available", lambda device: 10 * held)
    assert whole(lens, setting)


def test_plain_tensors_are_refused_where_their_pairs_do_not_fit(monkeypatch):
    lens = Lens.from_name("average_redundancy")
    assert len(lens.compute(outputs=torch.randn(9, 40))) == 40
    monkeypatch.setattr("nodelens.model.costs.available", lambda device: 40 * 40 * 8)
    with pytest.raises(InvalidValueError, match=r"of statistics on cpu, 12\.5 KiB are left"):
        lens.compute(outputs=torch.randn(9, 40))
