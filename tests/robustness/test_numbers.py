"""Any shape, precision, cut and padding, channels constant, tiny, huge or far from zero.

One layer with the identity for weights gives its input back to the bit in any precision, so what is
measured is known: the same rows in float64 NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from nodelens import CompositeLens, Lens, LensResult

Array = NDArray[np.float64]

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
# (scale, offset): float16 ends at 65504 and has no more than four digits.
KINDS = {
    "plain": (1.0, 0.5),
    "tiny": (1e-5, 0.0),
    "large": (1e5, 0.0),
    "far": (1.0, 1e6),
    "far below": (1.0, -1e6),
    "constant": (0.0, 0.3),
    "far constant": (0.0, 1e6),
    "zero": (0.0, 0.0),
}
HALF = {"tiny": (1e-3, 0.0), "large": (1e3, 0.0), "far": (1.0, 1e3), "far below": (1.0, -1e3)}
LENSES: dict[str, dict[str, Any]] = {
    "activation_mean": {},
    "activation_variance": {},
    "activation_l2_norm": {},
    "activation_max": {},
    "activation_sparsity": {},
    "activation_kurtosis": {},
    "activation_outlier_index": {"q": 0.5},
    "rayleigh_quotient": {"relative": False, "regularization": 0.0},
    "average_redundancy": {},
    "mutual_information_gaussian": {},
}


@dataclass(frozen=True)
class Case:
    """Rows in a layout, cut into batches."""

    layout: str
    dtype: torch.dtype
    kinds: tuple[str, ...]
    sizes: tuple[int, ...]
    seed: int

    def inputs(self) -> Tensor:
        """`(samples, channels)`, `(samples, tokens, channels)` or `(samples, channels, 2, 3)`."""
        generator = torch.Generator().manual_seed(self.seed)
        shape = {"rows": (), "tokens": (4,), "maps": (2, 3)}[self.layout]
        x = torch.randn((sum(self.sizes), *shape, len(self.kinds)), generator=generator).double()
        known = KINDS | (HALF if self.dtype == torch.float16 else {})
        if self.dtype == torch.float16:
            known["far constant"] = (0.0, 1e3)
        scale, offset = torch.tensor([known[kind] for kind in self.kinds]).double().T
        x = (x * scale + offset).to(self.dtype)
        return x.movedim(-1, 1) if self.layout == "maps" else x

    def mask(self) -> Tensor | None:
        """Which tokens count; each sample has one at least, and every second is whole."""
        if self.layout != "tokens":
            return None
        lengths = torch.arange(sum(self.sizes)) % 4 + 1
        return torch.arange(4) < lengths[:, None]

    def targets(self) -> Tensor:
        return torch.randn(
            sum(self.sizes), generator=torch.Generator().manual_seed(self.seed + 1)
        ).double()

    def model(self) -> nn.Module:
        width = len(self.kinds)
        layer = nn.Conv2d(width, width, 1) if self.layout == "maps" else nn.Linear(width, width)
        with torch.no_grad():
            layer.weight.copy_(torch.eye(width).view_as(layer.weight))
            layer.bias.zero_()
        return layer.to(self.dtype)

    def batches(self) -> list[Any]:
        cut = [part.split(list(self.sizes)) for part in (self.inputs(), self.targets())]
        mask = self.mask()
        masks = [None] * len(self.sizes) if mask is None else mask.split(list(self.sizes))
        return [
            (x, {"targets": y.to(self.dtype), "mask": m})
            for x, y, m in zip(*cut, masks, strict=True)
        ]

    def rows(self) -> tuple[Array, Array]:
        """The rows that count in float64, and the target of each."""
        x, mask = self.inputs().double(), self.mask()
        x = x.movedim(1, -1) if self.layout == "maps" else x
        y = self.targets().to(self.dtype).double()
        each = x[..., 0].numel() // len(x)
        rows, targets = x.reshape(-1, x.shape[-1]), y.repeat_interleave(each)
        kept = slice(None) if mask is None else mask.flatten()
        return rows[kept].numpy(), targets[kept].numpy()


@st.composite
def cases(draw: st.DrawFn) -> Case:
    return Case(
        draw(st.sampled_from(["rows", "tokens", "maps"])),
        draw(st.sampled_from(DTYPES)),
        tuple(draw(st.lists(st.sampled_from(list(KINDS)), min_size=2, max_size=5))),
        (*draw(st.lists(st.integers(1, 30), min_size=2, max_size=5)), 12),
        draw(st.integers(0, 2**31)),
    )


def reference(rows: Array, targets: Array) -> dict[str, Array]:
    """Every score in float64, from all rows at once; constants by the lens pages' own rules."""
    size, centred = np.abs(rows), rows - rows.mean(0)
    # A constant's mean may be off by a bit.
    centred[:, np.ptp(rows, axis=0) == 0] = 0
    square = (centred**2).sum(0)
    safe = np.where(square > 0, square, 1)
    unit = centred / np.sqrt(safe)
    rho = unit.T @ unit
    np.fill_diagonal(rho, 0)
    about = targets - targets.mean()
    explained = (unit.T @ about) ** 2 / (about @ about)
    middle, mean = np.median(size, axis=0), size.mean(0)
    return {
        "activation_mean": mean,
        "activation_variance": square / (len(rows) - 1),
        "activation_l2_norm": np.sqrt((rows**2).mean(0)),
        "activation_max": size.max(0),
        "activation_sparsity": (rows == 0).mean(0),
        "activation_kurtosis": np.where(
            square > 0, len(rows) * (centred**4).sum(0) / safe**2 - 3, 0
        ),
        "activation_outlier_index": np.where(mean > 0, middle / np.where(mean > 0, mean, 1), 0),
        "rayleigh_quotient": square / (len(rows) - 1),
        "average_redundancy": nats(rho**2).sum(1) / (len(rho) - 1),
        "mutual_information_gaussian": nats(explained),
    }


def nats(squared: Array) -> Array:
    return -0.5 * np.log1p(-np.minimum(squared, 1 - 1e-6))


def tolerances(rows: Array, dtype: torch.dtype) -> tuple[float, Array]:
    """The relative error of sums, and for every channel how far its mean may drift, in stds.

    Means are merged in float64, whatever the precision of the model.
    """
    eps = 2.0**-52 if dtype == torch.float64 else 2.0**-23
    deviation = rows.std(0)
    far = np.abs(rows).max(0) / np.where(np.ptp(rows, axis=0) > 0, deviation, np.inf)
    return 100 * eps, 2.0**-52 * far


def assert_measured(case: Case, result: LensResult) -> None:
    rows, targets = case.rows()
    small, drift = tolerances(rows, case.dtype)
    expected = reference(rows, targets)
    spread = {
        "activation_mean": 0 * drift,
        "activation_l2_norm": 0 * drift,
        "activation_max": 0 * drift,
        "activation_sparsity": 0 * drift,
        # The sketch is good to a hundredth; float16 and bfloat16 values lie far apart.
        "activation_outlier_index": 0 * drift + 0.01,
        "activation_variance": drift,
        "rayleigh_quotient": drift,
        "activation_kurtosis": 5 * drift,
        "average_redundancy": 0.05 * drift.max() + 0 * drift,
        "mutual_information_gaussian": 0.05 * drift,
    }
    # What is between 0 and about 1 is compared as if of size 1.
    absolute = {"activation_kurtosis", "average_redundancy", "mutual_information_gaussian"}
    for name, value in expected.items():
        found = result["model"][name].numpy()
        assert np.isfinite(found).all(), (name, case)
        size = np.maximum(np.abs(value), 1 if name in absolute else 0)
        bound = (small + spread[name]) * size
        worst = np.abs(found - value) - bound
        assert (worst <= 0).all(), (name, found, value, bound, case)


def measured(case: Case) -> LensResult:
    lens = CompositeLens([Lens.from_name(name, **options) for name, options in LENSES.items()])
    return lens.run(case.model(), case.batches(), progress=False)


@settings(max_examples=40)
@given(cases())
def test_forward_lenses_agree_with_float64_numpy(case: Case):
    assert_measured(case, measured(case))


@pytest.mark.slow
@settings(max_examples=200)
@given(cases())
def test_forward_lenses_agree_with_float64_numpy_on_many_cases(case: Case):
    assert_measured(case, measured(case))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["rows", "tokens", "maps"])
def test_every_kind_of_channel_at_once(layout: str, dtype: torch.dtype):
    case = Case(layout, dtype, tuple(KINDS), (1, 40, 7, 60), 5)
    assert_measured(case, measured(case))
