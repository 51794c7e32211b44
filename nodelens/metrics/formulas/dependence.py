"""What the channels of a layer share with one another all at once, in nats: Gaussian closed forms.

All of it follows from the determinant and the inverse of the correlation matrix. Correlations are
shrunk by `eps` first, (1 - eps) R + eps I, so that copies and channels that depend on each other
have a finite score; channels that do not vary are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from nodelens.metrics.formulas.basics import correlation

__all__ = ["Dependence", "determined_directions", "independent_information"]


@dataclass(frozen=True)
class Dependence:
    """Of the channels that vary: which they are, log det R, and the inverse of R, P.

    `varies` is `(channels,)`, `log_determinant` `()`, `precision` `(varying, varying)`.
    """

    varies: Tensor
    log_determinant: Tensor
    precision: Tensor

    @classmethod
    def of(cls, m2: Tensor, eps: float) -> Dependence:
        """Return that of channels with these sums of products of deviations."""
        varies, shrunk = _shrunk(m2, eps)
        factor = torch.linalg.cholesky(shrunk)
        return cls(varies, 2 * factor.diagonal().log().sum(), torch.cholesky_inverse(factor))

    @cached_property
    def about_others(self) -> Tensor:
        """Return I(y_i; all others), `(varying,)`."""
        return 0.5 * self.precision.diagonal().log()

    @cached_property
    def given_the_rest(self) -> Tensor:
        """Return the sum over k of I(y_i; y_k | all others), `(varying,)`.

        The partial correlations are -P_ik / sqrt(P_ii P_kk).
        """
        scale = self.precision.diagonal().rsqrt()
        partial = (self.precision * scale[:, None]).mul_(scale)
        partial.diagonal().zero_()
        return -0.5 * torch.log1p(-partial.square_()).sum(1)

    @property
    def total_correlation(self) -> Tensor:
        """Return the sum of all entropies minus the joint one, `()` (Watanabe 1960)."""
        return -0.5 * self.log_determinant

    @property
    def dual_total_correlation(self) -> Tensor:
        """Return the joint entropy minus what each channel has to itself, `()` (Han 1978)."""
        return self.about_others.sum() - self.total_correlation

    def spread(self, values: Tensor) -> Tensor:
        """Return values of the channels that vary as `(channels,)`, 0 for the others."""
        whole = torch.zeros_like(self.varies, dtype=values.dtype)
        whole[self.varies] = values
        return whole


def determined_directions(m2: Tensor, eps: float) -> tuple[int, int]:
    """Return in how many directions only the shrinkage leaves a variance, and of how many."""
    _, shrunk = _shrunk(m2, eps)
    values = torch.linalg.eigvalsh(shrunk)
    return int((values < 2 * eps).sum()), len(values)


def independent_information(rows: int, channels: int) -> float:
    """Return the mean of I(y_i; all others) that so few rows of independent Gaussians give.

    1 - R^2 of c - 1 predictors is Beta((n - c) / 2, (c - 1) / 2) distributed; infinite for n <= c.
    """
    if rows <= channels:
        return float("inf")
    halves = torch.tensor([(rows - 1) / 2, (rows - channels) / 2], dtype=torch.float64)
    whole, rest = torch.special.digamma(halves)
    return 0.5 * float(whole - rest)


def _shrunk(m2: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Which channels vary, and their correlations shrunk."""
    varies = m2.diagonal() > 0
    rho = correlation(m2[varies][:, varies])
    rho.mul_(1 - eps).diagonal().fill_(1)
    return varies, rho
