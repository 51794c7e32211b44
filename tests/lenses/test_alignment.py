"""Alignment on data with a known answer: planted directions, planted classes, planted changes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nodelens import Lens, LensResult
from nodelens.errors import InvalidValueError, MissingTargetsError, TooFewRowsError
from nodelens.metrics import get_metric
from tests.oracles import alignment
from tests.oracles.capture import Plain, as_array, capture

DOUBLE = torch.float64
SPREADS = torch.tensor([5.0, 3.0, 2.0, 1.0], dtype=DOUBLE)
"""Standard deviations of the planted inputs along their principal directions."""


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def planted(rows: int = 200) -> tuple[Tensor, Tensor]:
    """Inputs whose sample principal directions and variances are exact, and those directions."""
    drawn = torch.randn(rows, 4, dtype=DOUBLE)
    white = torch.linalg.qr(drawn - drawn.mean(0)).Q * (rows - 1) ** 0.5
    directions = torch.linalg.qr(torch.randn(4, 4, dtype=DOUBLE)).Q
    return white * SPREADS @ directions + 7, directions


def close(found: Tensor, expected: object, tolerance: float = 1e-9) -> None:
    wanted = torch.as_tensor(expected, dtype=DOUBLE)
    torch.testing.assert_close(found, wanted.expand_as(found), rtol=tolerance, atol=tolerance)


def test_a_unit_along_a_leading_direction_has_cosine_one_and_the_others_none():
    inputs, directions = planted()
    scores = get_metric("weight_activation_alignment", top_k=2).compute(
        inputs=inputs, weights=-3 * directions
    )
    close(scores, [1.0, 1.0, 0.0, 0.0])


def test_the_cosine_is_the_largest_of_those_with_single_directions():
    inputs, directions = planted()
    mixed = (directions[0] + directions[1])[None]
    for k, expected in ((1, 0.5**0.5), (2, 0.5**0.5), (4, 0.5**0.5)):
        metric = get_metric("weight_activation_alignment", top_k=k)
        close(metric.compute(inputs=inputs, weights=mixed), expected)


def test_a_direction_scores_its_share_of_all_variances():
    inputs, directions = planted()
    variances = SPREADS.square()
    scores = get_metric("spectral_alignment").compute(inputs=inputs, weights=2 * directions)
    close(scores, variances / variances.norm())


def test_inputs_that_vary_in_one_direction_alone_give_its_unit_one():
    direction = torch.tensor([0.6, 0.0, -0.8], dtype=DOUBLE)
    inputs = torch.randn(50, 1, dtype=DOUBLE) * direction + 2
    weights = torch.stack([direction, torch.tensor([0.0, 1.0, 0.0], dtype=DOUBLE)])
    for name in ("spectral_alignment", "weight_activation_alignment"):
        # Directions without variance are none: the second unit lies along such a one.
        close(get_metric(name).compute(inputs=inputs, weights=weights), [1.0, 0.0], 1e-7)


@pytest.mark.parametrize("name", ["spectral_alignment", "weight_activation_alignment"])
def test_no_scale_matters_to_directions(name: str):
    inputs, _ = planted()
    weights = torch.randn(6, 4, dtype=DOUBLE)
    before = get_metric(name).compute(inputs=inputs, weights=weights)
    scaled = weights * torch.logspace(-3, 3, 6, dtype=DOUBLE)[:, None]
    close(get_metric(name).compute(inputs=100 * inputs - 9, weights=scaled), before)
    assert ((before >= 0) & (before <= 1)).all()


@pytest.mark.parametrize("name", ["spectral_alignment", "weight_activation_alignment"])
def test_directions_of_dead_units_and_constant_inputs_score_zero(name: str):
    inputs, weights = planted()[0], torch.zeros(2, 4, dtype=DOUBLE)
    close(get_metric(name).compute(inputs=inputs, weights=weights), 0.0)
    weights = torch.ones(2, 4, dtype=DOUBLE)
    close(get_metric(name).compute(inputs=torch.full_like(inputs, 0.1), weights=weights), 0.0)


NAMES = [
    "conditional_rayleigh_quotient",
    "delta_rq",
    "rq_fast",
    "rq_patchwise",
    "rq_spatial",
    "spectral_alignment",
    "weight_activation_alignment",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_grouped_convolution_scores_as_its_groups_do_alone(name: str):
    grouped = nn.Conv2d(4, 6, 3, groups=2, padding=1).double()
    x, y = torch.randn(20, 4, 5, 5, dtype=DOUBLE), torch.arange(20) % 3
    # Another group's inputs, however large, are not read.
    x[:, 2:] *= 30
    whole = Lens.from_name(name).analyse(grouped, (x, y))["model"][name]
    for group in range(2):
        alone = nn.Conv2d(2, 3, 3, padding=1).double()
        mine = slice(3 * group, 3 * group + 3)
        alone.weight.data, alone.bias.data = grouped.weight.data[mine], grouped.bias.data[mine]
        part = (x[:, 2 * group : 2 * group + 2], y)
        close(whole[mine], Lens.from_name(name).analyse(alone, part)["model"][name])


class SamePadding(nn.Conv2d):
    """Pads inside its forward, as TensorFlow's "same" and EfficientNet-Lite's convolutions do."""

    def __init__(self, *args: int, **options: int) -> None:
        super().__init__(*args, **options)
        self.static_padding = nn.ZeroPad2d((0, 1, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.static_padding(x))


@pytest.mark.parametrize("name", ["rayleigh_quotient", "rq_patchwise", "spectral_alignment"])
def test_a_convolution_that_pads_by_itself_scores_as_one_behind_its_padding(name: str):
    own = SamePadding(2, 4, 3, stride=2).double()
    behind = nn.Sequential(own.static_padding, nn.Conv2d(2, 4, 3, stride=2).double())
    behind[1].load_state_dict(own.state_dict())
    images = torch.randn(9, 2, 6, 7, dtype=DOUBLE)
    (found,) = Lens.from_name(name).analyse(own, images).values()
    (expected,) = Lens.from_name(name).analyse(behind, images).values()
    torch.testing.assert_close(found[name], expected[name])


@pytest.mark.parametrize(
    ("name", "spatial"),
    [("rq_patchwise", "patchwise"), ("rq_spatial", "pixels"), ("rq_gap", "gap")],
)
def test_a_named_quotient_is_the_quotient_with_that_view(name: str, spatial: str):
    model, x = nn.Conv2d(2, 3, 3), torch.randn(9, 2, 6, 6)
    lens = Lens.from_name(name)
    found = lens.analyse(model, x)["model"][lens.name]
    expected = Lens.from_name("rq", spatial=spatial).analyse(model, x)["model"]["rayleigh_quotient"]
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["cond_rq", "rq_fast", "rq_patchwise", "rq_spatial"])
def test_quotients_of_inputs_that_never_vary(name: str):
    model, x = nn.Conv2d(2, 3, 2).double(), torch.full((6, 2, 4, 4), 0.1, dtype=DOUBLE)
    model.weight.data[1] = 0
    width = 2 if name in ("rq_fast", "rq_spatial") else 8
    for options, expected in (
        ({}, 1 / width),
        ({"relative": False, "regularization": 0.5}, 0.5),
        ({"regularization": 0.0}, 0.0),
    ):
        lens = Lens.from_name(name, **options)
        found = lens.analyse(model, (x, torch.arange(6) % 2))["model"][lens.name]
        # Positions count by their input variance, and here none has any.
        wanted = 0.0 if name == "rq_patchwise" else expected
        torch.testing.assert_close(
            found, torch.tensor([wanted, 0.0, wanted], dtype=DOUBLE), rtol=1e-6, atol=1e-12
        )


def classes(*, sizes: tuple[int, ...], gap: float) -> tuple[Tensor, Tensor]:
    """White inputs in every class of some size, whose means lie `gap` apart on the first axis."""
    parts, labels = [], []
    for label, size in enumerate(sizes):
        drawn = torch.randn(size, 3, dtype=DOUBLE)
        white = torch.linalg.qr(drawn - drawn.mean(0)).Q * (size - 1) ** 0.5
        parts.append(white + gap * label * torch.tensor([1.0, 0.0, 0.0], dtype=DOUBLE))
        labels += [label] * size
    return torch.cat(parts), torch.tensor(labels)


def test_what_tells_classes_apart_is_in_the_difference_alone():
    inputs, labels = classes(sizes=(60, 60), gap=4.0)
    weights = torch.eye(3, dtype=DOUBLE)
    given = {"inputs": inputs, "weights": weights, "targets": labels}
    options = {"relative": False, "regularization": 0.0}
    close(get_metric("cond_rq", **options).compute(**given), 1.0)
    # 120 rows of two classes 4 apart: 120 * 2^2 / 119 between, and 118 / 119 within.
    delta = get_metric("delta_rq", **options).compute(**given)
    close(delta, [480 / 119 - 1 / 119, -1 / 119, -1 / 119])
    close(get_metric("cond_rq", regularization=0.0).compute(**given), 1 / 3)
    relative = get_metric("delta_rq", regularization=0.0).compute(**given)
    assert relative[0] > 0.3 and (relative[1:] < -0.15).all()


def test_classes_count_by_their_rows():
    small, large = torch.randn(10, 3, dtype=DOUBLE), 5 * torch.randn(90, 3, dtype=DOUBLE)
    inputs, labels = torch.cat([small, large]), torch.tensor([0] * 10 + [1] * 90)
    metric = get_metric("cond_rq", relative=False, regularization=0.0)
    weights = torch.eye(3, dtype=DOUBLE)
    found = metric.compute(inputs=inputs, weights=weights, targets=labels)
    close(found, 0.1 * small.var(0) + 0.9 * large.var(0))


def test_a_single_class_takes_nothing_off():
    inputs, labels = torch.randn(30, 4, dtype=DOUBLE), torch.full((30,), 2)
    given = {"inputs": inputs, "weights": torch.randn(5, 4, dtype=DOUBLE), "targets": labels}
    close(get_metric("delta_rq").compute(**given), 0.0, 1e-14)
    whole = get_metric("rq").compute(**{k: v for k, v in given.items() if k != "targets"})
    close(get_metric("cond_rq").compute(**given), whole)


def test_labels_that_say_nothing_give_no_difference_on_average():
    """100 classes of four rows: a variance within them without n - 1 would be off by a quarter."""
    inputs, weights = torch.randn(400, 3, dtype=DOUBLE), torch.randn(4, 3, dtype=DOUBLE)
    labels, metric = torch.arange(400) % 100, get_metric("delta_rq", relative=False)
    found = torch.stack(
        [
            metric.compute(inputs=inputs, weights=weights, targets=labels[torch.randperm(400)])
            for _ in range(60)
        ]
    )
    whole = get_metric("rq", relative=False).compute(inputs=inputs, weights=weights)
    bias, error = found.mean(0) / whole, found.std(0) / 60**0.5 / whole
    assert (bias.abs() < 4 * error).all() and (error < 0.01).all()


def test_classes_of_one_row_are_left_out_and_told():
    inputs, labels = classes(sizes=(20, 20), gap=1.0)
    given = nn.Linear(3, 2, bias=False).double(), inputs, labels
    alone = _conditional(*given)
    stray = torch.full((2, 3), 50.0, dtype=DOUBLE)
    result = _conditional(
        given[0], torch.cat([inputs, stray]), torch.cat([labels, torch.tensor([5, 9])])
    )
    close(*(r["model"]["conditional_rayleigh_quotient"] for r in (result, alone)))
    assert not alone.notes
    assert result.notes == [
        "conditional_rayleigh_quotient, layer 'model': "
        "classes with one row, which has no variance, left out: 2"
    ]
    with pytest.raises(TooFewRowsError, match="no class has two rows, expected at least one"):
        _conditional(given[0], inputs[:5], torch.arange(5))


def _conditional(model: nn.Module, inputs: Tensor, labels: Tensor) -> LensResult:
    batches = list(zip(inputs.split(7), labels.split(7), strict=True))
    return Lens.from_name("cond_rq").run(model, batches, progress=False)


def test_a_quotient_within_classes_needs_class_numbers():
    x, model = torch.randn(9, 3), nn.Linear(3, 2)
    for targets in (None, torch.randn(9)):
        with pytest.raises(MissingTargetsError, match="'conditional_rayleigh_quotient'"):
            Lens.from_name("cond_rq").analyse(model, x if targets is None else (x, targets))


def test_the_plain_quotient_stays_plain_when_there_are_targets():
    inputs, labels = classes(sizes=(20, 20), gap=9.0)
    model = nn.Linear(3, 4).double()
    lens = Lens.from_name("rayleigh_quotient")
    with_targets = lens.analyse(model, (inputs, labels))["model"]["rayleigh_quotient"]
    assert torch.equal(with_targets, lens.analyse(model, inputs)["model"]["rayleigh_quotient"])


def test_float32_classes_far_from_zero_and_from_one_another():
    model = nn.Conv2d(2, 3, 3, padding=1, padding_mode="replicate")
    labels = torch.arange(40) % 4
    x = torch.randn(40, 2, 5, 5) + 1e3 + 1e2 * labels.view(-1, 1, 1, 1)
    found = Lens.from_name("cond_rq", relative=False).analyse(model, (x, labels))
    captured = capture(model.double(), [Plain((x.double(),), targets=labels)])["model"]
    expected = alignment.conditional_quotient(captured, relative=False)
    scores = found["model"]["conditional_rayleigh_quotient"]
    # The layer's own float32 outputs, of about 1e3, are good to 1e-4.
    np.testing.assert_allclose(scores, expected, rtol=1e-3)


@pytest.mark.parametrize("relative", [True, False])
def test_a_change_twice_as_large_has_half_the_normalized_quotient(relative: bool):
    x, before = torch.randn(50, 5, dtype=DOUBLE), torch.randn(4, 5, dtype=DOUBLE)
    change = torch.randn(4, 5, dtype=DOUBLE)
    change[3] = 0
    given = {"inputs": x, "initial_weights": before}
    metric = get_metric("normalized_delta_alignment", relative=relative)
    once = metric.compute(weights=before + change, **given)
    plain = get_metric("delta_alignment", relative=relative).compute(
        weights=before + change, **given
    )
    close(once[:3], plain[:3] / change[:3].norm(dim=1), 1e-8)
    assert once[3] == 0
    close(metric.compute(weights=before + 2 * change, **given), once / 2, 1e-8)


def test_the_normalized_quotient_of_a_change_agrees_with_the_oracle():
    model = nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, groups=2)
    initial = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model.weight += 0.1 * torch.randn_like(model.weight)
    batches = list(torch.randn(20, 4, 6, 5).split(7))
    lens = Lens.from_name("normalized_delta_alignment")
    result = lens.run(model, batches, initial_weights=initial, progress=False)
    captured = capture(model, [Plain((x,)) for x in batches])["model"]
    change = captured.weight - as_array(initial["weight"]).reshape(captured.weight.shape)
    expected = alignment.rayleigh_quotient(captured, weight=change)
    expected /= np.linalg.norm(change, axis=1)
    np.testing.assert_allclose(result["model"]["normalized_delta_alignment"], expected, rtol=1e-5)
    assert result.units["normalized_delta_alignment"] == "1/weight"


def test_options_out_of_range_are_named():
    with pytest.raises(InvalidValueError, match="top_k is 0, expected a whole number"):
        get_metric("weight_activation_alignment", top_k=0)
