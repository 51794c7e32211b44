"""What scores of independent normal channels are on average: squared correlations are beta."""

from __future__ import annotations

from math import lgamma

import numpy as np
from scipy.integrate import quad
from scipy.special import digamma
from scipy.stats import beta


def information(rows: int, predictors: int = 1) -> float:
    """Return the mean of -1/2 log(1 - R^2): 1 - R^2 is beta((n - 1 - k) / 2, k / 2)."""
    return float(digamma((rows - 1) / 2) - digamma((rows - 1 - predictors) / 2)) / 2


def less_of_two(rows: int, predictors: int = 1) -> float:
    """Return the mean of the smaller of two such informations."""
    squared = beta(predictors / 2, (rows - 1 - predictors) / 2)
    return float(quad(lambda x: squared.sf(1 - np.exp(-2 * x)) ** 2, 0, 30)[0])


def together(rows: int, classes: int) -> float:
    """Return the mean information of two channels about a class: Wilks' lambda is two betas."""
    within = digamma((rows - classes - np.arange(2)) / 2)
    return float((digamma((rows - 1 - np.arange(2)) / 2) - within).sum()) / 2


def size_of_correlation(rows: int) -> float:
    """Return the mean of abs(rho), whose square is beta(1/2, (n - 2) / 2)."""
    return float(np.exp(lgamma((rows - 1) / 2) - lgamma(rows / 2)) / np.sqrt(np.pi))


def total(rows: int, channels: int) -> float:
    """Return the mean total correlation: each channel's information with those before it."""
    return sum(information(rows, k) for k in range(1, channels))


def dual(rows: int, channels: int) -> float:
    """Return the mean dual: each channel's information with all others, less the total."""
    return channels * information(rows, channels - 1) - total(rows, channels)
