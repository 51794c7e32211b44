"""Shrinking convolutional networks and MLPs: equal to plain hooks, counted by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nodelens import ModelWrapper
from nodelens.errors import (
    IncompatibleModelError,
    InvalidValueError,
    LayerNotFoundError,
    ShapeError,
    SurgeryError,
)
from nodelens.pruning import Shrunk, shrink
from tests.pruning.shrinkable import (
    Concatenated,
    Mixing,
    ResNet,
    assert_untouched,
    grouped,
    images,
    keeping,
    mlp,
    separable,
    silent,
    snapshot,
    trained,
)


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def checked(
    model: nn.Module, masks: dict[str, Tensor], silenced: dict[str, list[int]], x: Tensor
) -> Shrunk:
    """Shrink, and compare with the model whose modules are silenced by hooks."""
    before = snapshot(model)
    found = shrink(model, masks, x, rounds=1)
    assert_untouched(model, before)
    with torch.no_grad():
        whole = model(x)
        with silent(model, silenced):
            wanted = model(x)
        close(found.model(x), wanted)
    assert not torch.allclose(whole, wanted, atol=1e-3), "nothing was at stake"
    assert found.report.parameters.before == sum(p.numel() for p in model.parameters())
    return found


def test_inner_channels_of_a_block_go_alone():
    model = trained(ResNet(), images())
    found = checked(model, {"block1.conv1": keeping(6, [0, 5])}, {"block1.bn1": [0, 5]}, images())
    gone = 2 * 6 * 9 + 2 * 2 + 2 * 6 * 9
    assert found.report.parameters.before - found.report.parameters.after == gone
    assert found.report.widths == {"block1.conv1": (6, 4)}
    assert found.report.input_widths == {"block1.conv2": (6, 4)}
    assert found.kept["block1.conv1"].tolist() == [1, 2, 3, 4]


def test_channels_of_a_residual_stream_go_in_all_its_layers():
    model = trained(ResNet(), images())
    found = checked(model, {"stem": keeping(6, [2])}, {"norm": [2], "block1.bn2": [2]}, images())
    # stem, norm, block1.conv1 (in), block1.conv2 (out), bn2, block2.conv1 (in), shortcut (in)
    gone = 18 + 2 + 6 * 9 + 6 * 9 + 2 + 8 * 9 + 8
    assert found.report.parameters.before - found.report.parameters.after == gone
    assert found.report.along == {"stem": ("block1.bn2", "block1.conv2", "norm")}


def test_equal_masks_of_a_residual_stream_are_one():
    model = trained(ResNet(), images())
    masks = {"block2.conv2": keeping(8, [1, 7]), "block2.shortcut.0": keeping(8, [1, 7])}
    found = checked(model, masks, {"block2.bn2": [1, 7], "block2.shortcut.1": [1, 7]}, images())
    assert found.model.fc.in_features == 6


def test_masks_that_disagree_name_both_layers():
    model = trained(ResNet(), images())
    masks = {"stem": keeping(6, [2]), "block1.conv2": keeping(6, [3])}
    with pytest.raises(SurgeryError, match=r"'(stem|block1.conv2)' and '(stem|block1.conv2)' dis"):
        shrink(model, masks, images())
    with pytest.raises(SurgeryError, match="disagree"):
        shrink(model, {**masks, "block1.conv2": keeping(6, [])}, images())


def test_depthwise_convolutions_go_along():
    model = trained(separable(), images())
    found = checked(model, {"0": keeping(6, [1, 4])}, {"1": [1, 4], "4": [1, 4]}, images())
    depthwise = found.model[3]
    assert (depthwise.groups, depthwise.in_channels, depthwise.out_channels) == (4, 4, 4)
    assert found.report.along == {"0": ("1", "3", "4")}


def test_a_linear_layer_behind_flatten_loses_a_map_a_channel():
    model = trained(separable(), images())
    found = checked(model, {"6": keeping(8, [0, 3])}, {"6": [0, 3]}, images())
    assert found.model[8].in_features == 6 * 9


def test_groups_of_a_convolution_stay_equal():
    model = trained(grouped(), images())
    masks = {"0": keeping(8, [0, 6]), "2": keeping(6, [1, 5])}
    found = checked(model, masks, {"0": [0, 6], "2": [1, 5]}, images())
    middle = found.model[2]
    assert (middle.groups, tuple(middle.weight.shape)) == (2, (4, 3, 3, 3))
    with pytest.raises(SurgeryError, match="'2' is a convolution of 2 groups, which keep 2, 3"):
        shrink(model, {"2": keeping(6, [1])}, images())


def test_a_whole_group_may_go():
    model = trained(grouped(), images())
    masks = {"0": keeping(8, [0, 1, 2, 3]), "2": keeping(6, [0, 1, 2])}
    found = checked(model, masks, {"0": [0, 1, 2, 3], "2": [0, 1, 2]}, images())
    assert found.model[2].groups == 1


def test_concatenated_channels_keep_their_places():
    model = trained(Concatenated(), images())
    masks = {"left": keeping(4, [3]), "right": keeping(6, [0, 2])}
    found = checked(model, masks, {"left": [3], "right": [0, 2]}, images())
    kept = [0, 1, 2, 5, 7, 8, 9]
    assert torch.equal(found.model.after.weight, model.after.weight[:, kept])


def test_channels_and_units_of_one_model_go_together():
    model = trained(Mixing(), images())
    masks = {"conv": keeping(8, [1]), "ffn.2": keeping(12, [0, 3])}
    found = checked(model, masks, {"norm": [1], "ffn.1": [0, 3], "ffn.2": [1]}, images())
    assert found.report.along == {"conv": ("ffn.2", "norm"), "ffn.2": ("ffn.0",)}


def test_convolutions_with_several_outputs_a_channel_lose_all_of_them():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3, groups=4), nn.Flatten(), nn.Linear(72, 3)
    )
    both = {"0": keeping(4, [1]), "2": keeping(8, [2, 3])}
    found = checked(model, both, {"0": [1], "2": [2, 3]}, images())
    assert found.model[2].groups == 3
    with pytest.raises(SurgeryError, match="4 groups, which keep 1, 0, 1, 1 inputs"):
        shrink(model, {"0": both["0"]}, images())


def test_a_mask_that_removes_nothing_gives_a_copy():
    model = trained(ResNet(), images())
    found = shrink(model, {"stem": keeping(6, [])}, images(), rounds=0)
    assert found.report.parameters.ratio == 1 and not found.report.widths
    assert all(map(torch.equal, found.model.parameters(), model.parameters()))


def test_an_mlp_is_counted_by_hand():
    model, x = mlp(), torch.randn(6, 4)
    masks = {"0": keeping(10, [0, 9]), "2": keeping(8, [3])}
    found = checked(model, masks, {"0": [0, 9], "2": [3]}, x)
    assert found.report.parameters.after == (4 * 8 + 8) + (8 * 7 + 7) + (7 * 3 + 3)
    assert found.report.bytes.after == 4 * found.report.parameters.after
    assert found.report.macs.before == 6 * (4 * 10 + 10 * 8 + 8 * 3)
    assert found.report.macs.after == 6 * (4 * 8 + 8 * 7 + 7 * 3)
    assert found.report.seconds.before > 0 and found.report.seconds.after > 0
    assert "largest difference" in str(found.report)


def test_settings_of_the_model_are_those_of_the_smaller_one():
    model = trained(ResNet(), images()).train()
    model.block1.eval()
    model.stem.weight.requires_grad_(False)
    before = snapshot(model)
    small = shrink(ModelWrapper(model), {"stem": keeping(6, [2])}, images(), rounds=1).model
    assert_untouched(model, before)
    assert [m.training for m in small.modules()] == before["training"]
    assert [p.requires_grad for p in small.parameters()] == before["wanted"]
    assert small.forward.__func__ is ResNet.forward
    with torch.no_grad():
        small.fc.weight.zero_()
    assert_untouched(model, before)


def test_inside_no_grad_and_inference_mode_it_works_as_well():
    model = trained(ResNet(), images())
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            found = shrink(model, {"stem": keeping(6, [2])}, images(), rounds=1)
        assert found.report.difference <= found.report.tolerance
        assert not any(p.is_inference() for p in found.model.parameters())


class Normed(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 10), nn.LayerNorm(10), nn.ReLU(), nn.Linear(10, 3))


def squashed() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 10), nn.Sigmoid(), nn.Linear(10, 3))


class PreActivated(nn.Module):
    """A norm between a residual stream and the convolution that reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv, self.fc = nn.Conv2d(6, 6, 3, padding=1), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.fc((x + self.conv(self.norm(x).relu())).mean((2, 3)))


class NormedTogether(Concatenated):
    """A norm behind two convolutions side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(10)

    def forward(self, x: Tensor) -> Tensor:
        both = self.norm(torch.cat([self.left(x), self.right(x)], 1))
        return self.after(both.relu()).mean((2, 3))


@pytest.mark.parametrize(
    ("make", "name", "width"),
    [
        (Normed, "0", 10),
        (squashed, "0", 10),
        (PreActivated, "conv", 6),
        (NormedTogether, "left", 4),
    ],
)
def test_what_silence_does_not_remove_is_refused(make, name, width):
    maps = make in (PreActivated, NormedTogether)
    x = images() if maps else torch.randn(6, 4, generator=seeded())
    model = trained(make(), x)
    before = snapshot(model)
    with pytest.raises(SurgeryError, match="differs from the masked one's by"):
        shrink(model, {name: keeping(width, [1])}, x)
    assert_untouched(model, before)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    model[2].weight = model[0].weight
    return model


def transposed() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.Unflatten(1, (3, 1)), nn.ConvTranspose1d(3, 2, 2))


def parametrized() -> nn.Module:
    first = nn.utils.parametrizations.weight_norm(nn.Linear(4, 10))
    return nn.Sequential(first, nn.ReLU(), nn.Linear(10, 3))


class Scaled(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 3))
        self.scale = nn.Parameter(torch.ones(10))

    def forward(self, x: Tensor) -> Tensor:
        return self[2](self[1](self[0](x)) * self.scale)


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(4, 6)
        self.experts = nn.Module()
        self.experts.down = nn.Parameter(torch.randn(2, 6, 3))

    def forward(self, x: Tensor) -> Tensor:
        return (self.up(x) @ self.experts.down).sum(0)


@pytest.mark.parametrize(
    ("make", "masks", "error", "text"),
    [
        (mlp, {}, InvalidValueError, "no masks"),
        (mlp, {"O": keeping(10, [1])}, LayerNotFoundError, "no layer 'O'"),
        (mlp, {"0": keeping(9, [1])}, ShapeError, r"'0': a mask of shape \(9,\), expected \(10,\)"),
        (mlp, {"0": torch.ones(10)}, InvalidValueError, "'0': the mask is torch.float32"),
        (mlp, {"0": [True] * 10}, InvalidValueError, "'0': the mask is list"),
        (mlp, {"0": keeping(10, range(10))}, InvalidValueError, "removes all 10"),
        (mlp, {"4": keeping(3, [1])}, SurgeryError, "'4': its channels are the model's output"),
        (tied, {"0": keeping(6, [1])}, IncompatibleModelError, "shares its weight with '2'"),
        (transposed, {"0": keeping(3, [1])}, IncompatibleModelError, "a ConvTranspose1d cannot"),
        (parametrized, {"0": keeping(10, [1])}, IncompatibleModelError, "its weight from others"),
        (Experts, {"experts": keeping(6, [1])}, IncompatibleModelError, "three axes"),
        (Experts, {"experts.down": keeping(6, [1])}, IncompatibleModelError, "three axes"),
        (Scaled, {"0": keeping(10, [1])}, IncompatibleModelError, r"parameter of shape \(10,\)"),
    ],
)  # fmt: skip
def test_bad_input_is_told_and_changes_nothing(make, masks, error, text):
    model = make()
    before = snapshot(model)
    x = torch.zeros(5, 6 if make is tied else 4)
    with pytest.raises(error, match=text):
        shrink(model, masks, x, rounds=1)
    assert_untouched(model, before)


def test_the_meta_device_is_refused():
    with torch.device("meta"):
        model = mlp()
    with pytest.raises(IncompatibleModelError, match="meta device"):
        shrink(model, {"0": keeping(10, [1])}, torch.zeros(5, 4))


@pytest.mark.parametrize("option", [{"round_to": 0}, {"tolerance": -1.0}, {"rounds": -1}])
def test_options_are_checked(option):
    with pytest.raises(InvalidValueError, match=next(iter(option))):
        shrink(mlp(), {"0": keeping(10, [1])}, torch.zeros(5, 4), **option)
