"""What cannot be pruned or silenced is told by our own errors, and nothing of the model changes."""

from __future__ import annotations

from typing import Any

import pytest
import sklearn.cluster  # noqa: F401 (imported in the first probe of clusters, it draws numbers)
import torch
from torch import Tensor, nn

from nodelens import Lens
from nodelens.errors import IncompatibleModelError, InvalidValueError, NodeLensError, ShapeError
from nodelens.interventions import evaluate
from nodelens.pruning import get_pruning_strategy, list_pruning_strategies, shrink
from nodelens.pruning.finetune import finetune
from nodelens.pruning.sensitivity import evaluate_masks
from nodelens.testing.manners import _lived_in, _unchanged
from nodelens.testing.subjects import SUBJECTS, TOKENS

BATCH = (torch.randn(5, 6), torch.arange(5) % 3)
SOME = torch.arange(8) > 2


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    model[2].weight = model[0].weight
    return model


class Experts(nn.Module):
    """All experts in one tensor of three axes."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.experts, self.out = nn.Linear(6, 8), nn.Module(), nn.Linear(4, 3)
        self.experts.down = nn.Parameter(torch.randn(2, 8, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.out((self.up(x) @ self.experts.down).sum(0))


def meta() -> nn.Module:
    with torch.device("meta"):
        return plain()


def probe(name: str, **options: Any) -> Any:
    return lambda model: Lens.from_name(f"prune_{name}", **options).analyse(model, BATCH)


def ablation(channels: Any) -> Any:
    return lambda model: Lens.from_name("ablation", channels=channels).analyse(model, BATCH)


def scores(name: str, **options: Any) -> Any:
    return lambda model: get_pruning_strategy(name).scores(model, [BATCH], **options)


def masks(given: Any, amount: Any = 0.5, **options: Any) -> Any:
    strategy = get_pruning_strategy("magnitude")
    return lambda model: strategy.masks(model, given, amount, **options)


def masked(**given: Any) -> Any:
    return lambda model: evaluate_masks(model, [BATCH], given)


def shrunk(name: str, mask: Any) -> Any:
    return lambda model: shrink(model, {name: mask}, BATCH[0], rounds=0)


SINGLE = torch.ones(6, 6, dtype=torch.bool).tril()
HALF = torch.arange(6) > 2
FUSED = "three axes; fused experts can be neither"
TIED = "shares its weight with '2': tied weights cannot be pruned in one place"
META = "on the meta device .*load the weights first"
CASES: list[tuple[Any, Any, type[Exception], str]] = [
    (Experts, scores("magnitude", layers="experts"), IncompatibleModelError, FUSED),
    (Experts, scores("wanda", layers=["up", "experts.down"]), IncompatibleModelError, FUSED),
    (Experts, masks({"experts": torch.rand(8)}), IncompatibleModelError, FUSED),
    (Experts, masked(experts=SOME), IncompatibleModelError, f"'experts' .*{FUSED}"),
    (Experts, ablation({"experts.down": [0]}), IncompatibleModelError, f"ablation.*{FUSED}"),
    (Experts, probe("wanda", layers="experts"), NodeLensError, "lens 'prune_wanda'.*'experts'"),
    (Experts, shrunk("experts", SOME), IncompatibleModelError, FUSED),
    (tied, scores("taylor"), IncompatibleModelError, f"strategy 'taylor': layer '0' {TIED}"),
    (tied, probe("fisher"), IncompatibleModelError, f"lens 'prune_fisher'.*{TIED}"),
    (tied, probe("wanda", structured=False), IncompatibleModelError, f"lens 'prune_wanda'.*{TIED}"),
    (tied, masked(**{"0": SINGLE}), IncompatibleModelError, TIED),
    (tied, shrunk("0", HALF), IncompatibleModelError, TIED),
    (meta, scores("magnitude"), IncompatibleModelError, META),
    (meta, scores("taylor"), IncompatibleModelError, META),
    (meta, probe("magnitude"), IncompatibleModelError, META),
    (meta, ablation({"0": [1]}), IncompatibleModelError, META),
    (meta, masked(**{"0": SOME}), IncompatibleModelError, META),
    (meta, lambda m: evaluate(m, [BATCH], {"0": [1]}), IncompatibleModelError, META),
    (
        meta,
        lambda m: get_pruning_strategy("wanda").prune(m[0], BATCH[0]),
        IncompatibleModelError,
        META,
    ),
    (
        meta,
        lambda m: finetune(m, [BATCH], [BATCH], masks={"0": SOME}),
        IncompatibleModelError,
        META,
    ),
    (plain, masked(**{"0": SOME[:7]}), ShapeError, r"layer '0': 7 entries, expected 8"),
    (plain, masked(**{"0": SOME[:7] | True}), ShapeError, r"'0': 7 entries"),
    (plain, masked(**{"0": torch.ones(6, 8).bool()}), ShapeError, r"\(6, 8\).* weight's \(8, 6\)"),
    (plain, masked(**{"0": torch.ones(8)}), InvalidValueError, "'0': the mask is torch.float32"),
    (plain, masked(**{"0": None}), InvalidValueError, "'0': the mask is NoneType"),
    (plain, masked(**{"0": SOME & False}), InvalidValueError, "'0': the mask removes all 8"),
    (plain, masked(**{"0": torch.zeros(8, 6).bool()}), InvalidValueError, "removes all 48"),
    (plain, ablation({"0": SOME[:7]}), ShapeError, r"lens 'ablation': layer '0': .*\(7,\) for 8"),
    (plain, ablation({"0": None}), InvalidValueError, "layer '0': None are no channel numbers"),
    (plain, masks({"0": torch.ones(7)}), ShapeError, "layer '0': 7 entries, expected 8"),
    (plain, masks({"0": torch.ones(8)}, 1.0), InvalidValueError, "amount is 1.0"),
    (plain, masks({"0": torch.ones(8)}, -0.1), InvalidValueError, "amount is -0.1"),
    (
        plain,
        masks({"0": torch.ones(8)}, protected={"0": range(8)}),
        InvalidValueError,
        "4 of 8 units, and the layers can lose 0 at most .*: '0'",
    ),
    (plain, probe("magnitude", layers="4"), NodeLensError, "lens 'prune_magnitude'.*'4'"),
    (
        plain,
        lambda m: finetune(m, [BATCH], [BATCH, BATCH], masks={"0": SOME[:7]}, in_place=True),
        ShapeError,
        "layer '0': 7 entries",
    ),
]


@pytest.mark.parametrize(("make", "act", "error", "message"), CASES)
def test_bad_input_is_told_and_changes_nothing(make, act, error, message):
    model = make()
    if make is meta:
        with pytest.raises(error, match=message):
            act(model)
        assert all(p.is_meta for p in model.parameters())
        return
    model = _lived_in(model)
    with _unchanged(model, BATCH), pytest.raises(error, match=message):
        act(model)


@pytest.mark.parametrize("amount", [1.0, 1.5, -0.1, float("nan"), "half", True])
def test_an_amount_outside_0_to_1_is_refused_wherever_it_is_given(amount):
    for act in (
        lambda: get_pruning_strategy("wanda", amount=amount),
        lambda: get_pruning_strategy("magnitude").prune(nn.Linear(3, 4), amount=amount),
        lambda: Lens.from_name("prune_wanda", amount=amount),
        lambda: Lens.from_name("prune_wanda", amounts=[0.1, amount]),
    ):
        with pytest.raises(InvalidValueError, match=r"amount is .*from 0 to below 1"):
            act()


def test_an_unknown_mode_is_refused_wherever_it_is_given():
    for act in (
        lambda: get_pruning_strategy("wanda", pruning_mode="lwo"),
        lambda: Lens.from_name("prune_wanda", pruning_mode="lwo"),
    ):
        with pytest.raises(InvalidValueError, match=r"pruning_mode is 'lwo' \(did you mean 'low'"):
            act()


def half_way(*_: Any) -> Any:
    raise RuntimeError("half way")


NO_SCORE_A_UNIT = {
    "attn_activation_power", "attn_gradient_power", "attn_loss_proxy", "attn_taylor",
    "cross_layer_halo", "delta_alignment", "delta_rq", "eigenvalue_alignment",
    "eigenvalue_entropy", "layer_redundancy", "node_redundancy", "normalized_delta_alignment",
    "participation_ratio", "spectral_clustering_score",
}  # fmt: skip
"""Lenses of heads, of whole layers or of a change: without more, their probes are refused."""


def by_cost(name: str) -> Any:
    """The strategies of the catalogue in the fast tier; each metric lens as one in the slow."""
    return pytest.param(name, marks=[pytest.mark.slow] if name in Lens.names() else [])


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("name", [by_cost(name) for name in list_pruning_strategies()])
def test_weights_are_bit_identical_after_every_probe_also_when_the_evaluation_raises(name):
    options = {"layers": "grouped"} if name == "bn_scale" else {}
    for subject in SUBJECTS:
        model, batch = _lived_in(subject.model()), subject.batch(8)
        try:
            with _unchanged(model, batch):
                Lens.from_name(f"prune_{name}", amount=0.4, **options).analyse(model, batch)
        except NodeLensError as error:
            said = str(error)
            continue
        failing = Lens.from_name(f"prune_{name}", amount=0.4, loss=half_way, **options)
        with _unchanged(model, batch), pytest.raises(RuntimeError, match="half way"):
            failing.analyse(model, batch)
        return
    assert name in NO_SCORE_A_UNIT, said


GIVEN = {"feed_forward.up": torch.ones(12), "feed_forward.down": torch.ones(12)}
WHERE = {
    "channels": {"channels": {"feed_forward.up": [0, 3]}},
    "units": {"channels": {"feed_forward.down": [0, 3]}, "site": "input"},
    "heads": {"heads": {"attention.output": [1]}},
}


@pytest.mark.parametrize(
    "value",
    ["zero", "mean", "resample", {**GIVEN, "attention.output": torch.ones(8)}],
    ids=["zero", "mean", "resample", "given"],
)
@pytest.mark.parametrize("where", WHERE)
def test_weights_are_bit_identical_after_every_ablation_also_when_the_evaluation_raises(
    where, value
):
    model, batch = _lived_in(TOKENS.model()), TOKENS.batch(8)
    with _unchanged(model, batch):
        found = Lens.from_name("ablation", value=value, **WHERE[where]).analyse(model, batch)
    assert float(found["model"]["output_change"]) > 0
    failing = Lens.from_name("ablation", value=value, loss=half_way, **WHERE[where])
    with _unchanged(model, batch), pytest.raises(RuntimeError, match="half way"):
        failing.analyse(model, batch)
