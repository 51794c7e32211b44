"""What lenses say of themselves, and what is derived from what they read."""

from __future__ import annotations

import pytest
import torch

from nodelens import Lens, MetricLens
from nodelens.metrics.facts import LensFacts, layer_of_shape
from nodelens.metrics.growth import growth, no_more_than
from nodelens.statistics import CrossMoments, Moments, Read
from nodelens.testing import checks

BUILT_IN = [n for n in Lens.names() if Lens.named(n).__module__.startswith("nodelens_lenses.")]


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_lens_says_all_there_is_to_say(name):
    lens, facts = Lens.named(name), LensFacts.of(name)
    assert lens.family and lens.formula and lens.degenerate and facts.summary
    assert lens.importance in (-1, 0, 1)
    growth(lens.state), growth(lens.cost)
    assert lens.formula.count("{") == lens.formula.count("}")
    assert lens.where.count("$") % 2 == 0 and lens.degenerate.count("$") % 2 == 0
    if issubclass(lens, MetricLens):
        assert lens.unit and lens.state


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_option_of_a_built_in_lens_is_explained(name):
    assert [o.name for o in LensFacts.of(name).options if not o.meaning] == []


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("activation_mean", ()),
        ("taylor_saliency", ("loss",)),
        ("synergy_gaussian_mmi", ("targets",)),
        ("delta_alignment", ("initial_weights",)),
        ("weight_magnitude", ("weights",)),
        ("rayleigh_quotient", ()),
        ("ablation", ("targets",)),
    ],
)
def test_needs_follow_from_what_is_read(name, needs):
    assert LensFacts.of(name).needs == needs


def test_the_bytes_told_are_those_a_run_keeps():
    model = torch.nn.Sequential(torch.nn.Linear(6, 5))
    found = next(Lens.from_name("rayleigh_quotient").analyse_batched(model, [torch.randn(9, 6)]))
    statistics = [s for read, s in found["0"].items() if isinstance(read, Read)]
    kept = sum(
        t.numel() * t.element_size() for s in statistics for t in s.widened().state().values()
    )
    assert LensFacts.of("rayleigh_quotient").state_of(layer_of_shape("5x6")).bytes == kept


def test_bytes_of_a_convolution_are_told_by_its_kernel():
    facts = LensFacts.of("gradient_alignment")
    small, large = (facts.state_of(layer_of_shape(s)).bytes for s in ("8x4x1x1", "8x4x3x3"))
    assert large > 7 * small


@pytest.mark.parametrize(
    ("slow", "fast"),
    [("C^2", "K C"), ("K C", "C"), ("C D", "C + D"), ("C1 C2", "C"), ("K (C + D)", "C + D")],
)
def test_growths_are_compared_by_the_power_of_channels(slow, fast):
    assert no_more_than(fast, slow) and not no_more_than(slow, fast)


@pytest.fixture
def stranger(monkeypatch):
    """A lens of twenty lines that says nothing of itself but its unit."""
    from nodelens.registry import LENSES

    class Plain(MetricLens):
        """Mean of every channel, `(channels,)`."""

        unit = "activation"

        def reads(self, layer):
            return {"values": Read("output", Moments)}

        def score(self, statistics, layer):
            return statistics["values"].mean

    monkeypatch.setattr(Plain, "name", "test.plain")
    monkeypatch.setattr(LENSES, "_classes", {**LENSES._classes, "test.plain": Plain})
    return Plain


def stated():
    next(check for check in checks("test.plain") if check.key == "stated")()


def test_a_lens_without_a_formula_keeps_the_contract(stranger):
    stated()


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("formula", r"\bar y"),
        ("formula", r"\frac{1}{n"),
        ("state", "a lot of it!"),
    ],
)
def test_half_a_statement_breaks_the_contract(stranger, monkeypatch, statement, text):
    monkeypatch.setattr(stranger, statement, text)
    with pytest.raises((AssertionError, ValueError)):
        stated()


def test_an_option_that_changes_what_is_read_changes_nothing_of_the_default():
    read = LensFacts.of("mutual_information_gaussian").reads(layer_of_shape("4x4"))
    assert [each.statistic for each in read] == [CrossMoments]
