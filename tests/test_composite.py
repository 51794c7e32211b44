"""Many lenses in one pass: equal reads measured once, editing lenses refused, names kept apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from nodelens import Aggregator, CompositeLens, Lens, MetricLens, ModelWrapper
from nodelens.errors import IncompatibleModelError, InvalidValueError, UnknownOptionError
from nodelens.model import tracing
from nodelens.statistics import Mean, Moments, Read, Statistic
from nodelens.statistics.base import Additive
from nodelens.testing.subjects import SUBJECTS, TOKENS, Subject, rows_of
from nodelens.testing.trial import assert_close, assert_equal

IMAGES = SUBJECTS[0]
LAYERS = ["stem", "grouped", "state", "twice", "output", "head"]


class ByHand(Lens):
    """Reads a module's output itself, under a name that is no layer's."""

    name = "by_hand"
    unit = "activation"

    def __init__(self, pattern: str | None = None, *, layers: Any = None, power: int = 1) -> None:
        super().__init__(pattern, layers=layers)
        self.power = power

    def _intervene(self, model: ModelWrapper, *, shift: float = 0.0, **kwargs: Any) -> Any:
        values = model.envoy("norm").output.detach().double() + shift
        rows = values.transpose(0, 1).flatten(1).T ** self.power
        return {"after the norm": {"value": Mean(len(rows), rows.sum(0))}}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def batches(subject: Subject = IMAGES, sizes: tuple[int, ...] = (7, 5)) -> list[Any]:
    batch, parts, start = subject.batch(sum(sizes)), [], 0
    for size in sizes:
        parts.append(rows_of(batch, slice(start, start + size)))
        start += size
    return parts


def run(lens: Lens, subject: Subject = IMAGES, **options: Any) -> Any:
    return lens.run(subject.model(), batches(subject), progress=False, **options)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each statistic was measured."""
    counts: Counter[str] = Counter()
    for kind in list(Statistic._classes.values()):
        # What adds up comes from a survey or starts from `empty`, all else is measured at one go.
        for start in ("surveyed", "empty") if issubclass(kind, Additive) else ("measure",):
            made = vars(kind).get(start)
            if made is None or getattr(made, "__isabstractmethod__", False):
                continue

            def counted(cls: Any, *args: Any, _original: Any = made.__func__, **kwargs: Any) -> Any:
                found = _original(cls, *args, **kwargs)
                counts[cls.__name__] += found is not None
                return found

            monkeypatch.setattr(kind, start, classmethod(counted))
    return counts


def test_what_several_lenses_read_is_measured_once(measured):
    names = ["activation_variance", "activation_l2_norm", "activation_kurtosis"]
    lenses = [Lens.from_name(name, layers=["stem", "head"]) for name in names]
    run(CompositeLens(lenses))
    # Two layers, two batches; the kurtosis needs a higher order, which serves the others too.
    assert measured == {"Moments": 4}
    measured.clear()
    for lens in lenses:
        run(lens)
    assert measured == {"Moments": 12}


def test_reads_of_another_site_or_option_are_measured_apart(measured):
    lenses = [
        Lens.from_name("activation_sparsity", layers=["head"]),
        Lens.from_name("activation_sparsity", layers=["head"], eps=0.1),
        Lens.from_name("activation_sparsity", layers=["head"], site="input"),
    ]
    run(CompositeLens(lenses))
    assert measured == {"NearZero": 6}


def test_gradient_lenses_share_their_products(measured):
    lenses = [
        Lens.from_name("taylor_saliency", layers=["head"], mode=m) for m in ("abs_mean", "sq_mean")
    ]
    run(CompositeLens(lenses))
    assert measured == {"ActivationGradient": 2}


def test_one_forward_pass_a_batch_whatever_the_lenses(monkeypatch):
    model, passes = IMAGES.model(), 0
    lenses = [
        Lens.from_name(n) for n in ("rayleigh_quotient", "taylor_saliency", "synergy_gaussian_mmi")
    ]
    composite = CompositeLens([*lenses, ByHand()])
    composite.analyse(model, IMAGES.batch(4))

    def count(*_: Any) -> None:
        nonlocal passes
        passes += 1

    model.stem.register_forward_pre_hook(count)
    traces = 0
    original = tracing.traced

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal traces
        traces += 1
        return original(*args, **kwargs)

    monkeypatch.setattr("nodelens.model.wrapper.traced", counted)
    composite.run(model, batches(sizes=(3, 3, 3)), progress=False)
    assert (passes, traces) == (3, 3)


@pytest.mark.slow
def test_every_metric_at_once_scores_as_it_does_alone():
    for subject in SUBJECTS:
        model = ModelWrapper(subject.model())
        model.route(model.prepare_batch(subject.batch()))
        made = [Lens.named(name).example(model) for name in Lens.names()]
        fit = [
            (lens, options)
            for lens, options in made
            if not lens.edits and lens.is_compatible(model)
        ]
        options = {name: value for _, own in fit for name, value in own.items()}
        together = run(CompositeLens([lens for lens, _ in fit]), subject, **options)
        # Some give more than one, under names that begin with theirs.
        assert {lens.name for lens, _ in fit} <= set(together.score_names)
        for lens, own in fit:
            alone = run(lens, subject, **own)
            assert_close(only(together, alone), alone, 1e-5)
            assert together.units[lens.name] == alone.units[lens.name]
            assert together.importance[lens.name] == alone.importance[lens.name]


def only(together: Any, alone: Any) -> Any:
    from nodelens import LensResult

    return LensResult(
        {layer: {n: together[layer][n] for n in scores} for layer, scores in alone.items()}
    )


def test_lenses_may_look_at_different_layers():
    lenses = [
        Lens.from_name("activation_mean", layers=["head"]),
        Lens.from_name("activation_max", pattern="st"),
        Lens.from_name("weight_magnitude"),
    ]
    result = run(CompositeLens(lenses))
    assert list(result) == LAYERS
    names = {layer: set(scores) for layer, scores in result.items()}
    assert names["head"] == {"activation_mean", "weight_magnitude"}
    assert names["stem"] == names["state"] == {"activation_max", "weight_magnitude"}
    assert names["twice"] == {"weight_magnitude"}


@pytest.mark.parametrize("position", [0, 1])
def test_a_lens_that_edits_is_refused_with_the_reason(position):
    lenses = [Lens.from_name("activation_mean")]
    lenses.insert(position, Lens.from_name("ablation", channels={"head": [0]}))
    with pytest.raises(InvalidValueError) as failure:
        CompositeLens(lenses)
    assert str(failure.value) == (
        "lens 'ablation' edits activations, so it cannot share a pass: "
        "the other lenses would measure the edited model; run it on its own"
    )


def test_what_is_no_lens_and_nothing_at_all_are_refused():
    with pytest.raises(IncompatibleModelError, match=r"made of lenses, got str; .*from_name"):
        CompositeLens(["activation_mean"])  # type: ignore[list-item]
    with pytest.raises(InvalidValueError, match="a composite of no lenses measures nothing"):
        CompositeLens([])


def test_composites_nest():
    inner = CompositeLens([Lens.from_name("activation_mean"), ByHand()])
    nested = CompositeLens([inner, CompositeLens([Lens.from_name("activation_max")])])
    flat = CompositeLens(
        [Lens.from_name("activation_mean"), ByHand(), Lens.from_name("activation_max")]
    )
    assert [lens.name for lens in nested.lenses] == ["activation_mean", "by_hand", "activation_max"]
    assert_equal(run(nested), run(flat))


def test_twins_are_told_apart_by_the_options_that_differ():
    twins = [Lens.from_name("rayleigh_quotient", relative=flag) for flag in (True, False)]
    result = run(CompositeLens([*twins, Lens.from_name("activation_mean")]))
    assert result.score_names == [
        "rayleigh_quotient[relative=True]",
        "rayleigh_quotient[relative=False]",
        "activation_mean",
    ]
    for flag, twin in zip((True, False), twins, strict=True):
        label = f"rayleigh_quotient[relative={flag}]"
        alone = run(twin)
        for layer, scores in alone.items():
            torch.testing.assert_close(result[layer][label], scores["rayleigh_quotient"])
        assert result.units[label] == alone.unit
    assert result.units["rayleigh_quotient[relative=False]"] == "activation^2"


def test_twins_on_different_layers_keep_to_their_own():
    twins = [Lens.from_name("activation_mean", layers=[name]) for name in ("stem", "head")]
    result = run(CompositeLens(twins))
    assert {layer: list(scores) for layer, scores in result.items()} == {
        "stem": ["activation_mean[layers=['stem']]"],
        "head": ["activation_mean[layers=['head']]"],
    }


def test_the_same_lens_twice_is_refused():
    lenses = [Lens.from_name("rq"), Lens.from_name("rayleigh_quotient")]
    with pytest.raises(InvalidValueError, match="'rayleigh_quotient' twice with the same options"):
        CompositeLens(lenses)


def test_several_scores_of_one_lens_keep_their_names():
    lenses = [
        Lens.from_name("pairwise_redundancy_gaussian", matrix=True, partners=p)
        for p in ("all", "nearest")
    ]
    result = run(CompositeLens(lenses))
    assert set(result["head"]) == {
        f"pairwise_redundancy_gaussian[partners={p}]{part}"
        for p in ("all", "nearest")
        for part in ("", ".matrix")
    }
    assert result["head"]["pairwise_redundancy_gaussian[partners=all].matrix"].shape == (5, 5)


def test_a_lens_that_reads_by_itself_shares_the_pass():
    mean = Lens.from_name("activation_mean")
    for lenses in ([mean, ByHand()], [ByHand(), mean]):
        result = run(CompositeLens(lenses))
        assert set(result) == {*LAYERS, "after the norm"}
        assert_close(only(result, run(mean)), run(mean), 1e-5)
        alone = run(ByHand())["after the norm"]["value"]
        assert torch.equal(result["after the norm"]["by_hand.value"], alone)
        assert result.units["by_hand.value"] == "activation"


def test_lenses_that_read_by_themselves_need_no_other():
    powers = [ByHand(power=1), ByHand(power=2)]
    result = run(CompositeLens(powers))
    for power, lens in zip((1, 2), powers, strict=True):
        mine = result["after the norm"][f"by_hand[power={power}].value"]
        assert torch.equal(mine, run(lens)["after the norm"]["value"])


def test_an_option_reaches_the_lens_that_has_it():
    composite = CompositeLens([Lens.from_name("activation_mean"), ByHand()])
    plain, moved = run(composite), run(composite, shift=2.0)
    gap = moved["after the norm"]["by_hand.value"] - plain["after the norm"]["by_hand.value"]
    torch.testing.assert_close(gap, torch.full_like(gap, 2.0))
    with pytest.raises(UnknownOptionError, match=r"no option 'shifts' .*did you mean 'shift'"):
        run(composite, shifts=2.0)


def test_options_of_preparing_reach_the_lens_that_has_them():
    model = IMAGES.model()
    initial = {name: value + 0.1 for name, value in model.state_dict().items()}
    delta, mean = Lens.from_name("delta_alignment"), Lens.from_name("activation_mean")
    result = run(CompositeLens([mean, delta]), initial_weights=initial)
    assert_close(only(result, alone := run(delta, initial_weights=initial)), alone, 1e-5)


def test_a_model_that_one_part_cannot_score_is_refused_naming_the_part():
    composite = CompositeLens([Lens.from_name("activation_mean"), Lens.from_name("scar_taylor")])
    for _ in range(2):
        with pytest.raises(
            IncompatibleModelError, match=r"lens 'scar_taylor': .*feed-forward block"
        ):
            run(composite)
    assert "feed_forward.down" in run(composite, TOKENS)


def test_a_saved_composite_is_made_again_from_its_file(tmp_path):
    twins = [Lens.from_name("rayleigh_quotient", relative=flag) for flag in (True, False)]
    composite = CompositeLens([*twins, Lens.from_name("taylor_saliency", mode="sq_mean")])
    aggregator, model = composite.aggregator(), IMAGES.model()
    for statistics in composite.analyse_batched(model, batches()):
        aggregator.update(statistics)
    aggregator.save(tmp_path / "state")
    loaded = Aggregator.load(tmp_path / "state")
    assert isinstance(loaded.lens, CompositeLens)
    assert loaded.lens.params == composite.params
    assert_equal(loaded.result(), aggregator.result())
    assert loaded.result().units == aggregator.result().units


def test_two_custom_lenses_may_read_in_opposite_order():
    class Reads(ByHand):
        def __init__(self, *names: str) -> None:
            super().__init__()
            self.names = names

        def _intervene(self, model: ModelWrapper, **kwargs: Any) -> Any:
            found = {}
            for name in self.names:
                output = model.envoy(name).output.detach().double()
                found[name] = {"value": Mean(len(output), output.flatten(1).sum(0))}
            return found

    class Early(Reads):
        name = "early"

    class Late(Reads):
        name = "late"

    result = run(CompositeLens([Late("output", "head"), Early("stem", "output")]))
    assert set(result["output"]) == {"late.value", "early.value"}
    assert torch.equal(result["output"]["late.value"], result["output"]["early.value"])


def test_a_higher_order_serves_a_lens_that_wants_none():
    class Wants(MetricLens):
        unit = "activation"

        def __init__(self, options: dict[str, Any]) -> None:
            super().__init__(layers=["head"])
            self.options = options

        def reads(self, layer: Any) -> dict[str, Read]:
            return {"values": Read("output", Moments, self.options)}

        def score(self, statistics: Any, layer: Any) -> Tensor:
            return statistics["values"].mean

    low, high = type("Low", (Wants,), {"name": "low"}), type("High", (Wants,), {"name": "high"})
    for lenses in ([low({}), high({"order": 4})], [high({"order": 4}), low({"order": 2})]):
        result = run(CompositeLens(lenses))
        assert torch.equal(result["head"]["low"], result["head"]["high"])
