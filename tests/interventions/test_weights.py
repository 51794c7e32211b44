"""Single weights silenced inside a trace: as in a copy with zeros there, and nothing written."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from nodelens.errors import IncompatibleModelError, InvalidValueError, ShapeError
from nodelens.interventions import Condition, evaluate, silenced, silenced_outputs
from nodelens.model import wrap
from nodelens.testing.subjects import SUBJECTS


def random_masks(model, names):
    generator = torch.Generator().manual_seed(5)
    shapes = {name: model.get_submodule(name).weight.shape for name in names}
    return {name: torch.rand(shape, generator=generator) < 0.6 for name, shape in shapes.items()}


def zeroed(model, masks):
    copy = deepcopy(model)
    for name, mask in masks.items():
        copy.get_submodule(name).weight.data[mask] = 0
    return copy


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda s: s.name)
def test_silent_weights_are_zeros_in_a_copy(subject):
    model, (inputs, targets) = subject.model().eval(), subject.batch(20)
    wrapper = wrap(model)
    batch = wrapper.prepare_batch((inputs, targets))
    route = wrapper.route(batch)
    masks = random_masks(model, [name for name in wrapper.layers if route.reached(name)])
    before = deepcopy(model.state_dict())
    found = silenced_outputs(wrapper, batch, Condition(weights=masks))
    with torch.no_grad():
        wanted = zeroed(model, masks)(*batch.args, **batch.kwargs)
        torch.testing.assert_close(found, wanted)
        assert not torch.allclose(found, model(*batch.args, **batch.kwargs))
        with silenced(model, Condition(weights=masks)) as quiet:
            torch.testing.assert_close(quiet(*batch.args, **batch.kwargs), wanted)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(isinstance(p, nn.Parameter) for p in model.parameters())


def test_weights_and_channels_of_different_layers_go_together():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    batches = [(torch.randn(9, 4), torch.randint(0, 3, (9,)))]
    masks = random_masks(model, ["2"])
    both = evaluate(model, batches, Condition({"0": [1, 4]}, weights=masks))
    assert both == evaluate(zeroed(model, masks), batches, {"0": [1, 4]})


@pytest.mark.parametrize(
    ("condition", "error", "said"),
    [
        ({"weights": {"0": torch.ones(4, 6, dtype=torch.bool)}}, ShapeError, r"\(4, 6\), expected"),
        ({"weights": {"0": torch.ones(6, 4)}}, ShapeError, "mask of weights is torch.float32"),
        ({"weights": {"9": torch.ones(6, 4)}}, ValueError, "no layer '9' to silence"),
        (
            {"weights": {"0": torch.ones(6, 4).bool()}, "channels": {"0": [0]}},
            InvalidValueError,
            "layer '0' has single weights to silence, and channels",
        ),
    ],
)
def test_masks_that_do_not_fit_are_refused(condition, error, said):
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    with pytest.raises(error, match=said):
        evaluate(model, [(torch.zeros(2, 4), torch.zeros(2).long())], Condition(**condition))


def test_a_parametrized_weight_is_refused():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), nn.Linear(3, 2))
    masks = {"0": torch.ones(3, 4, dtype=torch.bool)}
    with pytest.raises(IncompatibleModelError, match="layer '0' has a parametrized weight"):
        evaluate(model, [(torch.zeros(2, 4), torch.zeros(2).long())], Condition(weights=masks))
