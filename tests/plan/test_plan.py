"""A plan says before a run what the run then takes."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from nodelens import CompositeLens, Lens, ModelWrapper
from nodelens.errors import InvalidValueError, UnknownOptionError
from nodelens.memory import as_bytes, shown_bytes
from tests.plan.conftest import Setting, held


def run_of(lens: Lens, setting: Setting, **options: object) -> int:
    """The bytes that the aggregator holds after a run."""
    aggregator = lens.aggregator()
    for statistics in lens.analyse_batched(setting.model, setting.batches, **options):
        aggregator.update(statistics)
    return held(aggregator)


def test_planned_bytes_are_those_held_after_a_run_lens_by_lens(setting):
    for lens in setting.lenses():
        options = setting.options if "initial_weights" in lens.prepare_options() else {}
        plan = lens.plan(setting.model, setting.batches[0], **options)
        assert plan.bytes == {"cpu": run_of(lens, setting, **options)}, lens
        assert len(plan.passes) == 1 and plan.peak["cpu"] >= plan.bytes["cpu"]


def test_planned_bytes_are_those_held_by_all_lenses_together(setting):
    lens = setting.everything()
    plan = lens.plan(setting.model, setting.batches[0], **setting.options)
    assert plan.bytes == {"cpu": run_of(lens, setting, **setting.options)}
    assert all(not read.unknown for read in plan.reads)
    apart = [
        one.plan(setting.model, setting.batches[0], **_own(one, setting)) for one in lens.lenses
    ]
    assert plan.bytes["cpu"] < sum(one.bytes["cpu"] for one in apart), "equal reads count once"


def _own(lens: Lens, setting: Setting) -> dict[str, object]:
    return setting.options if "initial_weights" in lens.prepare_options() else {}


def test_without_a_batch_the_plan_says_what_it_counts_for_one_of(setting):
    lens = setting.everything()
    plan = lens.plan(setting.model, **setting.options)
    assert ModelWrapper(setting.model).known_route() is not None
    unknown: dict[str, set[tuple[str, ...]]] = {}
    for read in plan.reads:
        unknown.setdefault(read.statistic, set()).add(read.unknown)
    # Of the margin between logits there is one, whatever the classes.
    assert unknown["CrossMoments"] == {("classes",), ()}
    assert unknown["ClassMoments"] == {("classes",)}
    assert unknown["CoMoments"] == unknown["QuantileSketch"] == {()}
    assert "for one of the classes" in str(plan) and plan.passes[0].batch_flops is None


def test_without_a_batch_nothing_is_run():
    class Explosive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.never = nn.Linear(4, 3), nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.ndim == 2, "ran"
            return self.first(x)

    model, lens = Explosive(), Lens.from_name("average_redundancy")
    assert lens.plan(model).layers == ["first", "never"]
    assert lens.plan(model, torch.zeros(5, 4)).layers == ["first"]


def test_positions_are_known_from_a_batch_only():
    model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU())
    lens = Lens.from_name("rayleigh_quotient", spatial="patchwise")
    before = {read.statistic: read.unknown for read in lens.plan(model).reads}
    assert before == {"PositionMoments": ("positions",), "RowNorms": ()}
    plan = lens.plan(model, torch.randn(2, 1, 5, 5))
    assert plan.bytes["cpu"] == 8 * (2 * 3 * 16 + 2 * 25 + 2 * 3)


def test_rows_and_work_of_a_batch():
    model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(48, 10))
    plan = Lens.from_name("average_redundancy").plan(model, torch.randn(7, 1, 5, 5))
    assert [(read.rows, read.flops) for read in plan.reads] == [
        (7 * 16, 2 * (9 + 3)),
        (7, 2 * (100 + 10)),
    ]
    assert plan.passes[0].batch_flops == 7 * 16 * 24 + 7 * 220
    assert plan.passes[0].flops == 24 + 220


def test_a_layer_called_twice_has_the_rows_of_both_calls():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.shared(self.shared(x))

    plan = Lens.from_name("activation_mean").plan(Twice(), torch.randn(5, 4))
    assert [read.rows for read in plan.reads] == [10]


def test_numeric_targets_count_their_dimensions():
    model, lens = nn.Linear(6, 5), Lens.from_name("mutual_information_gaussian")
    plan = lens.plan(model, (torch.randn(9, 6), torch.randn(9, 3)))
    assert plan.bytes["cpu"] == 8 * (5 + 5 + 3 + 9 + 15)


def test_a_plan_changes_nothing_of_the_model(setting):
    lens, model = setting.everything(), setting.model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    lens.plan(model, setting.batches[0], **setting.options)
    assert model.training and torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_text_html_and_json_say_the_same(setting):
    lens = setting.everything()
    whole = lens.plan(setting.model, setting.batches[0], **setting.options)
    budget = whole.peak["cpu"] - 1
    plan = lens.plan(setting.model, setting.batches[0], memory_budget=budget, **setting.options)
    data = json.loads(json.dumps(plan.to_json()))
    assert data["memory_budget"] == budget and len(data["passes"]) == len(plan.passes) > 1
    assert max(each["bytes"]["cpu"] for each in data["passes"]) == plan.bytes["cpu"]
    assert sum(len(each["reads"]) for each in data["passes"]) == len(plan.reads)
    shown, page = str(plan), plan._repr_html_()
    for read in plan.reads:
        assert read.statistic in shown and f"<td>{read.statistic}</td>" in page
    assert f"pass {len(plan.passes)}: " in shown and page.count("<table>") == len(plan.passes)


def test_lenses_with_code_of_their_own_are_named(setting):
    @Lens.register("tests.plain")
    class Plain(Lens):
        def _intervene(self, model, **kwargs):
            return {}

    try:
        lens = CompositeLens([Lens.from_name("activation_mean"), Plain()])
        plan = lens.plan(setting.model, setting.batches[0])
        assert plan.unplanned == ("tests.plain",) and "tests.plain" in str(plan)
        with pytest.raises(InvalidValueError, match=r"'tests.plain' measures by code of its own"):
            Plain().plan(setting.model)
        with pytest.raises(InvalidValueError, match=r"'tests.plain' measures by code of its own"):
            Plain().run(setting.model, setting.batches, memory_budget="1 GiB")
    finally:
        from nodelens.registry import LENSES

        LENSES._classes.pop("tests.plain")


def test_an_unknown_option_is_refused():
    with pytest.raises(UnknownOptionError, match="memory_buget"):
        Lens.from_name("activation_mean").plan(nn.Linear(2, 2), memory_buget=3)


@pytest.mark.parametrize(
    ("text", "size"),
    [("2 GiB", 2 << 30), ("600MiB", 600 << 20), ("1.5 kB", 1500), (7, 7), ("7", 7), ("3b", 3)],
)
def test_amounts_of_memory(text, size):
    assert as_bytes(text) == size


@pytest.mark.parametrize("text", ["2 GoB", "", "-1", 0, True, None, "1e9", 2.5e9])
def test_what_is_no_amount_of_memory(text):
    with pytest.raises(InvalidValueError, match="memory"):
        as_bytes(text)


def test_amounts_are_shown_in_binary_units():
    shown = [shown_bytes(n) for n in (1023, 1024, 600 << 20, (1 << 40) * 5000)]
    assert shown == ["1023 B", "1.00 KiB", "600 MiB", "5e+03 TiB"]
