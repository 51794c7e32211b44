"""Strategies that put several scores together, worked out by hand; and SCAR's formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nodelens import Lens
from nodelens.errors import InvalidValueError, ShapeError
from nodelens.metrics.formulas import supernodes as formulas
from nodelens.pruning import get_pruning_strategy
from nodelens.pruning.strategies.kinds import kinds_of
from nodelens.testing.subjects import SUBJECTS, TOKENS, rows_of

MODEL = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
ROLES = {
    "rq": [0.0, 1.0, 2.0, 4.0],
    "redundancy": [4.0, 0.0, 1.0, 2.0],
    "synergy": [0.0, 0.0, 4.0, 2.0],
    "mi": [2.0, 0.0, 0.0, 4.0],
    "taylor": [1.0, 2.0, 3.0, 4.0],
    "magnitude": [3.0, 1.0, 2.0, 4.0],
    "proxy": [1.0, 3.0, 2.0, 9.0],
}
GIVEN = {role: {"0": torch.tensor(values)} for role, values in ROLES.items()}


def scored(name: str, **options) -> list[float]:
    made = get_pruning_strategy(name, given=GIVEN, **options)
    return made.scores(MODEL, layers="0")["0"].tolist()


@pytest.mark.parametrize(
    ("variant", "wanted"),
    [
        ("taylor", [1, 2, 3, 4]),
        ("rq_weighted", [0, 0.5, 1.5, 4]),
        ("redundancy_discounted", [0, 2, 2.25, 2]),
        ("synergy_boosted", [1, 2, 6, 6]),
        ("mi", [0.5, 0, 0, 4]),
        ("structural", [2 / 3, 0, 1, 4]),
        ("full", [0, 0.5, 1.5 * 0.75 * 2, 4 * 0.5 * 1.5]),
        # A quarter each: channel 3 critical, 0 redundant, 2 synergistic, 1 background.
        ("cluster_type", [0.5, 2, 4.5, 8]),
    ],
)
def test_the_variants_of_generalised_taylor(variant, wanted):
    assert scored("generalized_taylor", variant=variant) == pytest.approx(wanted)


def test_the_gate_is_a_logistic_of_z_scores():
    rq, red = (np.array(ROLES[r]) for r in ("rq", "redundancy"))
    z = [(a - a.mean()) / a.std(ddof=1) for a in (rq, red)]
    wanted = np.array(ROLES["taylor"]) / (1 + np.exp(-(z[0] - z[1])))
    assert scored("generalized_taylor", variant="gated") == pytest.approx(wanted)


def test_composites_add_normalised_scores():
    assert scored("composite") == pytest.approx([-1, 0.25, 1.25, 1.0])
    assert scored("composite", weights={"rq": 2.0}) == pytest.approx([0, 0.5, 1, 2])


def test_strata_lose_the_same_part_each():
    values = {
        "rq": {"0": torch.tensor([0.0, 9.0, 1.0, 8.0])},
        "magnitude": {"0": torch.tensor([5.0, 2.0, 3.0, 1.0])},
    }
    made = get_pruning_strategy("stratified", strata=2, given=values)
    # Strata by rq are {0, 2} and {3, 1}; in each the smaller weights go.
    mask = made.masks(MODEL, made.scores(MODEL, layers="0"))["0"]
    assert mask.tolist() == [True, True, False, False]


def test_kinds_without_a_clustering_are_quarters():
    kinds = kinds_of(*(torch.tensor(ROLES[r]) for r in ("rq", "redundancy", "synergy")))
    assert kinds == ["redundant", "background", "synergistic", "critical"]


def test_clusters_say_who_goes_first_and_last():
    plain = scored("cluster_aware", protect=0.0, redundant_first=False)
    assert plain == pytest.approx([-1, 0.25, 1.25, 1.0])
    tiers = scored("cluster_aware", protect=0.25, types={"0": ["critical", "redundant"] * 2})
    assert tiers == pytest.approx([-1, 0.25 - 10, 1.25, 1.0 - 10 + 20])
    halo = {"0": torch.tensor([0.0, 2.0, 0.0, 0.0])}
    lifted = scored("cluster_aware", protect=0.0, redundant_first=False, halo=halo)
    assert lifted == pytest.approx([-1, 0.75, 1.25, 1.0])
    pairs = {"0": [(0, 2)]}
    paired = scored("cluster_aware", protect=0.0, redundant_first=False, synergy_pairs=pairs)
    assert paired == pytest.approx([1.25, 0.25, 1.25, 1.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"types": {"0": ["critical"]}}, "1 types for 4 channels"),
        ({"types": {"0": ["critcal"] * 4}}, "did you mean 'critical'"),
        ({"halo": {"0": torch.zeros(3)}}, r"halo of shape \(3,\) for 4 channels"),
        ({"synergy_pairs": {"0": [(0, 4)]}}, r"no pair \(0, 4\) among 4 channels"),
    ],
)
def test_what_clusters_are_given_is_checked(options, message):
    with pytest.raises(ValueError, match=f"strategy 'cluster_aware': layer '0': .*{message}"):
        scored("cluster_aware", **options)


def test_given_scores_are_checked():
    with pytest.raises(InvalidValueError, match=r"given has the role 'rg' \(did you mean 'rq'\?\)"):
        get_pruning_strategy("composite", given={"rg": {}})
    with pytest.raises(InvalidValueError, match="given 'rq' lacks layer '1'"):
        get_pruning_strategy("composite", weights={"rq": 1.0}, given=GIVEN).scores(
            MODEL, layers="1"
        )


def test_the_optimal_weights_have_the_sign_of_the_data():
    generator = torch.Generator().manual_seed(0)
    wide = nn.Sequential(nn.Linear(3, 60), nn.Linear(60, 2))
    parts = {role: torch.randn(60, generator=generator) for role in ("rq", "redundancy")}
    proxy = 2 * parts["rq"] - 3 * parts["redundancy"]
    given = {role: {"0": s} for role, s in {**parts, "proxy": proxy}.items()}
    made = get_pruning_strategy("lp_optimal", metrics=("rq", "redundancy"), alpha=0.0, given=given)
    found = made.scores(wide, layers="0")["0"]
    assert torch.corrcoef(torch.stack([found, proxy.double()]))[0, 1] > 1 - 1e-9
    made = get_pruning_strategy("lp_optimal", metrics=("redundancy",), given=given)
    found = made.scores(wide, layers="0")["0"]
    assert torch.corrcoef(torch.stack([found, parts["redundancy"].double()]))[0, 1] < -0.99


# SCAR


def test_the_core_is_protected_and_the_others_are_ranked_among_themselves():
    redundancy, core = torch.tensor([9.0, 0.1, 0.2, 0.3]), torch.tensor([0])
    found = formulas.scar_prot(torch.ones(4), redundancy, 0.2, core)
    protect = [1, 1, 0.2 + 0.8 * (1 - 0.5**8), 0.2]
    assert found.tolist() == pytest.approx(protect)
    connected = torch.tensor([1.0, 1.0, 0.0, 0.5])
    found = formulas.scar_conn(torch.full((4,), 2.0), connected, redundancy, 0.2, core)
    assert found.tolist() == pytest.approx([2, 2, 2, 2 * (1 - 0.5 + 0.1)])


@pytest.mark.parametrize("scale", [1.0, 1e-9])
def test_the_information_with_the_core_has_no_scale(scale):
    generator = torch.Generator().manual_seed(0)
    q = torch.randn((500, 3), generator=generator).double()
    q[:, 1] += q[:, 0]
    q = q * scale
    centred = q - q.mean(0)
    products = centred.T @ centred
    found = formulas.information_with_core(products[:1], products.diagonal(), torch.tensor([0]))
    rho = np.corrcoef(q.T.numpy())[0, 1]
    assert float(found[1]) == pytest.approx(-0.5 * math.log(1 - rho**2))


def signals(model: nn.Module, batch) -> tuple[Tensor, Tensor]:
    """u and the gradient of the summed loss there, by a hook of one's own."""
    seen = {}

    def hook(module, args):
        args[0].retain_grad()
        seen["u"] = args[0]

    handle = model.feed_forward.down.register_forward_pre_hook(hook)
    inputs, targets = batch
    nn.functional.cross_entropy(model(**inputs), targets, reduction="sum").backward()
    handle.remove()
    return seen["u"].detach().flatten(0, 1).double(), seen["u"].grad.flatten(0, 1).double()


@pytest.mark.parametrize("name", ["supernode_protection", "supernode_connectivity", "two_halo"])
def test_scar_over_a_model_is_scar_of_its_token_signals(name):
    batch = TOKENS.batch(20)
    u, g = signals(TOKENS.model(), batch)
    parts = [rows_of(batch, slice(0, 7)), rows_of(batch, slice(7, 20))]
    strategy = get_pruning_strategy(name, core=0.2, write_fraction=0.3)
    found = strategy.scores(TOKENS.model(), parts)["feed_forward.down"]
    down = TOKENS.model().feed_forward.down
    torch.testing.assert_close(found, strategy.score(down, u, gradients=g), rtol=1e-4, atol=1e-9)
    q = (u * g).numpy()
    proxy = (q**2).mean(0) / 2
    core = np.argsort(-proxy)[:2]
    rho = np.corrcoef(q.T)[core]
    information = -0.5 * np.log(1 - np.clip(rho**2, 0, (1 - 1e-6) ** 2)).mean(0)
    others = [i for i in range(12) if i not in core]
    rank = np.zeros(12)
    rank[others] = np.argsort(np.argsort(information[others])) / (len(others) - 1)
    protect = 0.2 + 0.8 * (1 - rank**8)
    size = np.abs(down.weight.detach().numpy().astype(float))
    written = size[:, core] / size[:, core].sum(0)
    top = np.argsort(-written.sum(1))[: round(0.3 * len(size))]
    conn = size[top].sum(0) / size.sum(0)
    wanted = proxy * protect
    if name != "supernode_protection":
        wanted = proxy * (1 - conn + conn * protect)
    assert found.tolist() == pytest.approx(wanted, rel=1e-4)


def test_scar_masks_columns_of_a_down_projection_and_wants_a_block():
    down, u, g = nn.Linear(12, 5), torch.randn(30, 12), torch.randn(30, 12)
    mask = get_pruning_strategy("two_halo", amount=0.25).prune(down, u, gradients=g)
    assert mask.shape == (5, 12) and mask[0].tolist().count(False) == 3
    assert bool((mask == mask[:1]).all())
    with pytest.raises(InvalidValueError, match=r"two_halo.*units of feed-forward blocks"):
        get_pruning_strategy("two_halo").scores(SUBJECTS[0].model(), [SUBJECTS[0].batch()])
    with pytest.raises(ShapeError, match="for 12 units"):
        get_pruning_strategy("two_halo").mask(down, torch.zeros(5))


def test_the_proxy_is_that_of_the_lens():
    model, batch = TOKENS.model(), TOKENS.batch(20)
    lens = Lens.from_name("scar_loss_proxy").analyse(model, batch).scores()["feed_forward.down"]
    floor = get_pruning_strategy("supernode_protection", floor=1.0).scores(model, [batch])
    torch.testing.assert_close(floor["feed_forward.down"], lens)
