"""Lenses of clusters and halos on models: against their parts, on planted truth, over branches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from nodelens import CompositeLens, Lens
from nodelens.analysis.clustering import TYPES, MetricSpaceClustering
from nodelens.errors import IncompatibleModelError, InvalidValueError, TooFewRowsError
from nodelens.metrics import get_metric
from nodelens.testing.subjects import TOKENS
from nodelens.testing.trial import Trial, assert_close
from tests.oracles import clusters as oracle

PARTS = ("rayleigh_quotient", "average_redundancy", "gaussian_pid_synergy_mmi")
HALO = "cross_layer_halo"


def network(*, grouped: int = 1) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 2, groups=grouped), nn.ReLU(),
        nn.Flatten(), nn.Linear(12 * 9, 10), nn.Tanh(), nn.Linear(10, 3),
    ).double()  # fmt: skip


def batch(rows: int = 40):
    inputs = torch.randn(rows, 2, 6, 6, generator=torch.Generator().manual_seed(1)).double()
    return inputs, torch.arange(rows) % 3


def halo(**options) -> Lens:
    return Lens.from_name(HALO, permutations=39, **options)


@pytest.fixture(scope="module")
def types() -> dict[str, list[str]]:
    """The types of every layer's channels, from the parts' own scores."""
    scores = CompositeLens([Lens.from_name(name) for name in PARTS]).analyse(network(), batch())
    clusterer = MetricSpaceClustering(shuffles=0)
    return {
        layer: clusterer.fit(*(found[name] for name in PARTS), layer_name=layer).channel_types
        for layer, found in scores.items()
    }


def test_types_are_those_of_the_parts_own_scores(types):
    lens = Lens.from_name("metric_space_clustering", shuffles=9)
    batches = [tuple(x[part] for x in batch()) for part in (slice(0, 15), slice(15, 40))]
    result = lens.run(network(), batches, progress=False)
    for layer, expected in types.items():
        found = result[layer]
        codes = found["metric_space_clustering"].tolist()
        assert [TYPES[int(code)] for code in codes] == expected
        assert 0 < found["metric_space_clustering.p_value"] <= 1
        assert -1 <= found["metric_space_clustering.silhouette"] <= 1
        for name in ("log_rq", "redundancy", "synergy"):
            z = found[f"metric_space_clustering.{name}"]
            assert z.mean().abs() < 1e-6 and z.std(unbiased=False) == pytest.approx(1)
    assert any("no structure" in note for note in result.notes)


def test_types_do_not_hang_on_how_a_stream_is_cut():
    """On this network two k-means solutions are as good but for 1e-3: rounding used to choose."""
    trial = Trial("metric_space_clustering", TOKENS)
    model = trial.model(torch.float64)
    whole = trial.run([trial.batch(24)], model)
    for size in (1, 7):
        cut = [size] * (24 // size) + [24 % size] * (24 % size > 0)
        assert_close(trial.run(trial.parts(*cut), model), whole, 1e-9)


def test_a_halo_on_plain_tensors_is_refused_with_what_to_call():
    model, (inputs, targets) = nn.Linear(3, 8), (torch.randn(9, 3), torch.arange(9) % 3)
    outputs = model(inputs).detach()
    with pytest.raises(InvalidValueError, match="call CrossLayerHaloAnalysis"):
        get_metric(HALO).compute(
            inputs=inputs, outputs=outputs, weights=model.weight, targets=targets,
            next_outputs=outputs,
        )  # fmt: skip


def test_what_arrives_in_one_row_alone_has_no_spread():
    inputs, targets = batch(1)
    with pytest.raises(TooFewRowsError, match=r"layer '\d': one row seen, expected at least 2"):
        halo().analyse(network(), (inputs, targets))


@pytest.mark.parametrize("grouped", [1, 2])
def test_a_halo_is_the_share_of_what_arrives_from_the_type(grouped):
    model, (inputs, targets) = network(grouped=grouped), batch()
    with torch.no_grad():
        arriving = model[:2](inputs)
    lens = halo(source="0", target="2", cluster="redundant", percentile=75)
    result = lens.analyse(model, (inputs, targets))
    assert list(result) == ["2"]
    scores = CompositeLens([Lens.from_name(name) for name in PARTS]).analyse(model, batch())["0"]
    found = MetricSpaceClustering(shuffles=0).fit(*(scores[name] for name in PARTS))
    members = found.channels_of("redundant").tolist()
    spread = arriving.std((0, 2, 3)).numpy()
    weights = model[2].weight.detach().numpy()
    expected = oracle.relative_influence(oracle.influence(weights, spread, grouped), members)
    np.testing.assert_allclose(result["2"][HALO], expected, rtol=1e-9)
    inside = expected >= np.percentile(expected, 75) - 1e-12
    assert result["2"][f"{HALO}.in_halo"].tolist() == inside.astype(float).tolist()
    assert 1 / 40 <= result["2"][f"{HALO}.p_value"] <= 1


def test_what_follows_is_the_share_of_squared_correlations():
    torch.manual_seed(3)
    model, inputs = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4)).double(), None
    inputs = torch.randn(60, 5).double()
    result = halo().analyse(model, (inputs, torch.arange(60) % 3))
    first = model[0](inputs).detach()
    rho = np.corrcoef(first.T, model(inputs).detach().T)[:7, 7:] ** 2
    scores = CompositeLens([Lens.from_name(name) for name in PARTS]).analyse(
        model, (inputs, torch.arange(60) % 3)
    )["0"]
    found = MetricSpaceClustering(shuffles=0).fit(*(scores[name] for name in PARTS))
    members = found.channels_of("critical").numpy()
    np.testing.assert_allclose(
        result["2"][f"{HALO}.followed"], rho[members].sum(0) / rho.sum(0), rtol=1e-9
    )


def test_every_layer_has_a_halo_of_the_one_before_it():
    result = halo().analyse(network(), batch())
    assert list(result) == ["2", "5", "7"]
    assert result["5"][HALO].shape == (10,)  # positions of flattened maps are summed
    assert f"{HALO}, layer '5': the source is '2'" in result.notes
    both = CompositeLens([halo(), Lens.from_name("activation_mean")]).analyse(network(), batch())
    torch.testing.assert_close(both["5"][HALO], result["5"][HALO])


class _Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.gate(x).sigmoid() * self.up(x))


def test_of_layers_side_by_side_the_last_is_the_source_unless_one_is_named():
    torch.manual_seed(0)
    model, given = _Gated(), (torch.randn(30, 4), torch.arange(30) % 2)
    assert f"{HALO}, layer 'down': the source is 'up'" in halo().analyse(model, given).notes
    named = halo(source="gate").analyse(model, given)
    assert named.notes == [f"{HALO}, layer 'down': the source is 'gate'"]


def test_a_planted_halo_is_found_on_a_model():
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(10, 20), nn.Linear(20, 30))
    # Four units follow inputs of their own that vary a lot; what arrives from them is no larger.
    inputs = torch.randn(200, 10) * torch.tensor([30.0] * 4 + [1] * 6)
    given = (inputs, torch.arange(200) % 2)
    with torch.no_grad():
        model[0].weight[:4] = torch.eye(4, 10) / 30
        model[0].weight[4:, :4] = 0
        model[1].weight[[3, 9, 27]] = 0.01 * torch.randn(3, 20)
        model[1].weight[[3, 9, 27], :4] = 1.0
    result = halo(cluster="critical").analyse(model, given)
    chosen = result["1"][f"{HALO}.in_halo"].nonzero().flatten().tolist()
    assert chosen == [3, 9, 27] and result["1"][f"{HALO}.p_value"] <= 0.05


def test_pairs_that_do_not_fit_are_named():
    model = network()
    with pytest.raises(IncompatibleModelError, match=r"layer '7' takes 10 inputs.* 12 channels"):
        halo(source="2", target="7").analyse(model, batch())
    with pytest.raises(IncompatibleModelError, match="no layer '6'"):
        halo(source="5", target="6").analyse(model, batch())
    with pytest.raises(InvalidValueError, match="target is '2' without source="):
        halo(target="2")
    with pytest.raises(InvalidValueError, match="did you mean 'critical'"):
        halo(cluster="criticl")
    with pytest.raises(InvalidValueError, match="permutations is 0"):
        Lens.from_name(HALO, permutations=0)
    with pytest.raises(InvalidValueError, match="two layers"):
        get_metric(HALO).score({}, None)
    with pytest.raises(InvalidValueError, match="options are given for 'rq'"):
        halo(options={"rq": {}})
