"""What channels say about classes and numbers, from all rows at once, class by class."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.special import digamma
from scipy.stats import rankdata
from sklearn.decomposition import PCA
from sklearn.feature_selection import f_classif
from sklearn.linear_model import LinearRegression, Ridge, RidgeCV
from sklearn.metrics import mutual_info_score
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tests.oracles.capture import Array
from tests.oracles.information import as_columns, nats


def by_class(rows: Array, labels: Array) -> Iterator[Array]:
    for label in np.unique(labels):
        yield rows[labels == label]


def _entropy(rows: Array) -> Array:
    """Gaussian entropy of every column but for the constant, without bias."""
    half = (len(rows) - 1) / 2
    return 0.5 * (np.log(rows.var(0, ddof=1)) - digamma(half) + np.log(half))


def class_information(rows: Array, labels: Array) -> Array:
    """Return H(y) - sum_c p_c H(y | c), for classes of two rows at least."""
    inner = [len(own) / len(rows) * _entropy(own) for own in by_class(rows, labels)]
    return _entropy(rows) - np.sum(inner, 0)


def class_rms(rows: Array, labels: Array) -> Array:
    """Return the root mean square of every class over that of all rows, `(classes, channels)`."""
    sizes = [np.sqrt((own**2).mean(0)) for own in by_class(rows, labels)]
    return np.array(sizes) / np.sqrt((rows**2).mean(0))


def norm_ratio(rows: Array, labels: Array) -> Array:
    norms = class_rms(rows, labels)
    return norms.max(0) / norms.min(0)


def selectivity(rows: Array, labels: Array) -> Array:
    """Return the index of Morcos et al. (2018), channel by channel."""
    found = []
    for y in rows.T:
        means = sorted(own.mean() for own in by_class(y, labels))
        best, rest = means[-1], np.mean(means[:-1])
        found.append((best - rest) / (abs(best) + abs(rest)))
    return np.array(found)


def _shares(rows: Array, labels: Array) -> Array:
    means = np.array([own.mean(0) for own in by_class(rows, labels)])
    raised = np.where(means.min(0) < 0, means - means.min(0), means)
    return raised / raised.sum(0)


def tuning_variance(rows: Array, labels: Array) -> Array:
    shares = _shares(rows, labels)
    one_hot = np.eye(len(shares))[0]
    return shares.var(0) / one_hot.var()


def tuning_entropy(rows: Array, labels: Array) -> Array:
    shares = _shares(rows, labels)
    terms = [[p * np.log(p) if p > 0 else 0.0 for p in column] for column in shares.T]
    return 1 + np.sum(terms, 1) / np.log(len(shares))


def tuning_gini(rows: Array, labels: Array) -> Array:
    """Return half the mean difference of shares over their mean, over its largest value."""
    shares = _shares(rows, labels)
    classes = len(shares)
    gaps = np.abs(shares[:, None] - shares[None]).sum((0, 1))
    return gaps / (2 * classes**2 * shares.mean(0)) / (1 - 1 / classes)


def fisher(rows: Array, labels: Array) -> Array:
    """Return the variance between over that within classes, from scikit-learn's F."""
    classes = len(np.unique(labels))
    return f_classif(rows, labels)[0] * (classes - 1) / (len(rows) - classes)


def boundary_distance(rows: Array, labels: Array) -> Array:
    """Return the row-weighted half distance to the nearest other mean, in pooled deviations."""
    groups = list(by_class(rows, labels))
    means = np.array([own.mean(0) for own in groups])
    inner = sum(((own - own.mean(0)) ** 2).sum(0) for own in groups)
    spread = np.sqrt(inner / (len(rows) - len(groups)))
    found = np.zeros(rows.shape[1])
    for k, own in enumerate(groups):
        others = np.delete(means, k, axis=0)
        found += len(own) * np.abs(others - means[k]).min(0) / 2
    return found / len(rows) / spread


def left_out_class_quality(rows: Array, labels: Array, penalty: float = 1.0) -> Array:
    """Return the leave-one-out R^2 of scikit-learn's ridge from one-hot classes."""
    hot = OneHotEncoder(sparse_output=False).fit_transform(labels[:, None])
    probe = RidgeCV(alphas=[penalty], store_cv_results=True).fit(hot, rows)
    error = probe.cv_results_.reshape(rows.shape).sum(0)
    others = (rows.sum(0) - rows) / (len(rows) - 1)
    return 1 - error / ((rows - others) ** 2).sum(0)


def left_out_number_quality(rows: Array, targets: Array, penalty: float = 1.0) -> Array:
    """Return the R^2 of scikit-learn's ridge by generalised cross-validation."""
    scaled = StandardScaler().fit_transform(targets.reshape(len(targets), -1))
    missed = rows - Ridge(alpha=penalty).fit(scaled, rows).predict(scaled).reshape(rows.shape)
    hat = scaled @ np.linalg.solve(scaled.T @ scaled + penalty * np.eye(scaled.shape[1]), scaled.T)
    n = len(rows)
    error = (missed**2).sum(0) / (n - 1 - np.trace(hat)) ** 2
    return 1 - error / (((rows - rows.mean(0)) ** 2).sum(0) / (n - 1) ** 2)


def first_component(inputs: Array) -> Array:
    return PCA(n_components=1, svd_solver="full").fit_transform(inputs)


def information_within_classes(
    rows: Array, labels: Array, reference: Array, corrected: bool = True
) -> Array:
    """Return the mean over classes of the information with a reference, without bias if asked."""
    targets, found = reference.shape[1], np.zeros(rows.shape[1])
    for label in np.unique(labels):
        own, signal = rows[labels == label], reference[labels == label]
        told = _told(own, signal)
        n = len(own)
        bias = (digamma((n - 1) / 2) - digamma((n - 1 - targets) / 2)) / 2 if corrected else 0
        found += n / len(rows) * (told - bias)
    return found


def _told(rows: Array, targets: Array) -> Array:
    missed = rows - LinearRegression().fit(targets, rows).predict(targets)
    return nats(1 - missed.var(0) / rows.var(0))


def conditional_information(rows: Array, targets: Array, given: Array) -> Array:
    """Return I(y; T | Z): the information of residuals after regression on Z."""
    columns = as_columns(targets)

    def left(values: Array) -> Array:
        return values - LinearRegression().fit(given, values).predict(given)

    return _told(left(rows), left(columns))


def binned_information(
    rows: Array, targets: Array, bins: int = 10, strategy: str = "quantile"
) -> Array:
    """Return the corrected information of binned columns, averaged over numeric targets."""
    if targets.dtype.kind == "i":
        columns = [targets]
    else:
        numbers = targets.reshape(len(targets), -1).T
        columns = [_binned(t, bins, 64, strategy) for t in numbers]
    cut = [_binned(y, bins, 256, strategy) for y in rows.T]
    return np.array([np.mean([_corrected(y, t) for t in columns]) for y in cut])


def _binned(values: Array, bins: int, fine: int, strategy: str) -> Array:
    """Fine bins a power of two wide, then ranks or positions of these in `bins` parts."""
    width = 2.0 ** np.floor(np.log2(np.ptp(values) / fine) - 1)
    while np.floor(values.max() / width) - np.floor(values.min() / width) >= fine:
        width *= 2
    number = np.floor(values / width).astype(int)
    if strategy == "uniform":
        low, used = number.min(), np.ptp(number) + 1
        return (2 * (number - low) + 1) * bins // (2 * used)
    twice = np.round(2 * rankdata(number) - 1).astype(int)
    return twice * bins // (2 * len(values))


def _corrected(y: Array, t: Array) -> float:
    pairs = len(np.unique(np.stack([y, t]), axis=1).T)
    cells = len(np.unique(y)) + len(np.unique(t)) - pairs - 1
    return float(mutual_info_score(y, t) + cells / (2 * len(y)))
