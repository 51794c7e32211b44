"""Convolutions with a `forward` of their own: the window they really slide, or a clear refusal."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nodelens import CompositeLens, Lens
from nodelens.errors import IncompatibleModelError, MergeError

DOUBLE = torch.float64
NAMES = ["rq", "rq_patchwise", "cond_rq", "spectral_alignment", "fisher", "gradient_alignment"]


class Conv2dSame(nn.Conv2d):
    """TensorFlow's "same", worked out from the size of the input, as timm does it."""

    def forward(self, x: Tensor) -> Tensor:
        ends: list[int] = []
        for size, k, s in zip(x.shape[-2:], self.kernel_size, self.stride, strict=True):
            total = max((-(-size // s) - 1) * s + k - size, 0)
            ends = [total // 2, total - total // 2, *ends]
        x = functional.pad(x, ends)
        return functional.conv2d(x, self.weight, self.bias, self.stride, 0)


class Mirrored(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.pad(x, (1, 2, 0, 1), mode="reflect"))


class Twice(nn.Conv2d):
    """Zeros around what is padded with zeros already."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.pad(functional.pad(x, (1, 0)), (0, 2, 1, 0)))


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight / self.weight.norm(), self.bias)


class Scaled(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x)


class Constant(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.pad(x, (1, 1, 1, 1), value=1.0))


class Cut(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.pad(x, (-1, 0)))


class Summed(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + super().forward(-x)


OBSCURED = {
    Standardised: "other weights",
    Scaled: "changes its input",
    Constant: "more than zeros",
    Cut: "more than zeros",
    Summed: "calls 2 convolutions",
}


def behind(own: nn.Conv2d, pad: nn.Module) -> nn.Module:
    """The same convolution as torch's own, behind a module that pads."""
    plain = nn.Conv2d(2, 4, 3, stride=own.stride, padding=own.padding).double()
    plain.load_state_dict(own.state_dict())
    return nn.Sequential(pad, plain)


def batches(*size: int) -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(1)
    return [(torch.randn(6, 2, *size, dtype=DOUBLE) + 1, torch.arange(6) % 3) for _ in range(2)]


def summed(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.square().sum()


def same(model: nn.Module, plain: nn.Module, stream: list[tuple[Tensor, Tensor]]) -> None:
    lens = CompositeLens([Lens.from_name(name) for name in NAMES])
    (found,) = lens.run(model, stream, progress=False, loss=summed).values()
    (expected,) = lens.run(plain, stream, progress=False, loss=summed).values()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


@pytest.mark.parametrize(
    ("kind", "stride", "padding", "pad"),
    [
        (Conv2dSame, 1, 0, nn.ZeroPad2d((1, 1, 1, 1))),
        (Conv2dSame, 2, 0, nn.ZeroPad2d((1, 1, 0, 1))),
        (Twice, 2, 1, nn.ZeroPad2d((1, 2, 1, 0))),
        (Mirrored, 1, 0, nn.ReflectionPad2d((1, 2, 0, 1))),
    ],
)
def test_it_scores_as_one_behind_its_padding(kind, stride: int, padding: int, pad: nn.Module):
    own = kind(2, 4, 3, stride=stride, padding=padding).double()
    same(own, behind(own, pad), batches(6, 7))


def test_maps_of_another_size_are_padded_anew_in_another_run_and_refused_in_the_same():
    own = Conv2dSame(2, 4, 3, stride=2).double()
    same(own, behind(own, nn.ZeroPad2d((1, 1, 0, 1))), batches(6, 7))
    same(own, behind(own, nn.ZeroPad2d((0, 1, 1, 1))), batches(7, 6))
    with pytest.raises(MergeError, match=r"'model' pads by the size .* \(6, 7\) after \(7, 6\)"):
        stream = [*batches(7, 6), *batches(6, 7)]
        Lens.from_name("rayleigh_quotient").run(own, stream, progress=False)
    # What looks at no window takes any size.
    Lens.from_name("activation_l2_norm").run(own, stream, progress=False)


@pytest.mark.parametrize(
    ("kind", "said"), OBSCURED.items(), ids=lambda x: getattr(x, "__name__", x)
)
def test_what_hides_its_window_is_refused_and_named(kind: Callable[..., nn.Module], said: str):
    model = nn.Sequential(nn.Identity(), kind(2, 4, 3).double())
    with pytest.raises(IncompatibleModelError, match=rf"layer '1' \({kind.__name__}\).*{said}"):
        Lens.from_name("rayleigh_quotient").run(model, batches(6, 7), progress=False)
    assert Lens.from_name("activation_l2_norm").run(model, batches(6, 7), progress=False)


def test_a_plan_knows_the_window_with_and_without_a_batch():
    own, stream = Conv2dSame(2, 4, 3, stride=2).double(), batches(6, 7)
    lens = CompositeLens([Lens.from_name(name) for name in NAMES])
    measured = lens.measure(own, stream, progress=False, loss=summed)
    plan = lens.plan(own, stream[0], loss=summed)
    assert plan.bytes["cpu"] == sum(
        t.numel() * t.element_size()
        for key, s in measured.statistics["model"].items()
        if key != "layer"
        for t in s.state().values()
    )
    assert lens.plan(own).reads


def test_a_convolution_that_only_wraps_torch_s_own_takes_any_size():
    class Plain(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)

    own = Plain(2, 4, 3, padding=1).double()
    stream = [*batches(6, 7), *batches(7, 6)]
    assert Lens.from_name("rayleigh_quotient").run(own, stream, progress=False)
