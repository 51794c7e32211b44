"""How alike the channels of a layer are, in how many directions they vary, and how they group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nodelens import Lens, MetricLens, ModelWrapper
from nodelens.errors import InvalidValueError, MissingTargetsError, nearest
from nodelens.metrics.formulas import (
    cluster_gap,
    correlation,
    cosines,
    mean_partner,
    normalised_spectrum,
    participation_ratio,
    ratio,
    spectral_entropy,
    spectral_overlap,
)
from nodelens.model import Layer
from nodelens.statistics import CoMoments, Read, ReferenceSpectrum, Statistic

__all__ = [
    "ActivationCosineSimilarity",
    "EigenvalueAlignment",
    "EigenvalueEntropy",
    "ParticipationRatio",
    "SpectralClusteringScore",
]


class _Spectrum(MetricLens):
    family = "spectrum"
    unit = "1"
    state = "C^2"
    cost = "C^2"
    minimum_rows = 2

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {"values": Read("output", CoMoments)}


@Lens.register("activation_cosine_similarity")
class ActivationCosineSimilarity(_Spectrum):
    """Mean cosine of a channel's activations with those of every other, `(channels,)`, no unit.

    In [-1, 1]. Of the activations as they are, their mean not taken off, over all rows at once: it
    does not depend on how rows come in batches.
    """

    importance = -1
    by_block = True
    minimum_rows = 1
    formula = (
        r"\frac{1}{C-1} \sum_{j \ne i} \frac{\sum_r y_{ri} y_{rj}}"
        r"{\sqrt{\sum_r y_{ri}^2 \sum_r y_{rj}^2}}"
    )
    degenerate = (
        "A channel that is always 0 has the cosine 0 with every other, constant channels of the "
        "same sign have 1; the only channel of a layer scores 0."
    )

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        seen = statistics["values"]
        squares = seen.diagonal() + seen.rows * seen.mean.square()
        scores = []
        for part in seen.parts():
            mine = slice(part.start, part.start + len(part.m2))
            products = torch.addr(part.m2, seen.mean[mine], seen.mean, alpha=seen.rows)
            cosine = cosines(products, squares, part.start)
            scores.append(mean_partner(cosine, start=part.start))
        return torch.cat(scores)


class _OfCovariance(_Spectrum):
    def score(self, statistics: Mapping[str, Any], layer: Layer) -> dict[str, Tensor]:
        m2 = statistics["values"].m2
        return {self.name: self._whole(m2), "share": ratio(m2.diagonal(), m2.diagonal().sum())}

    def _whole(self, m2: Tensor) -> Tensor:
        """The layer's number, `()`, from sums of products of deviations."""
        raise NotImplementedError

    def score_units(self, score: str) -> tuple[str, int]:
        return ("1", +1) if score.endswith(".share") else (self.unit, 0)


@Lens.register("eigenvalue_entropy")
class EigenvalueEntropy(_OfCovariance):
    """Entropy of the normalised spectrum of the channels' covariance, `()`, in nats.

    Between 0, all channels vary along one direction, and log C, alike in all; its exponential is
    the effective rank. `.share` is every channel's share of the layer's variance, `(channels,)`.
    """

    unit = "nat"
    formula = (
        r"-\sum_k p_k \log p_k, \qquad p_k = \frac{\lambda_k}{\sum_l \lambda_l}, \qquad "
        r"\text{share: } \frac{\operatorname{Var}(y_i)}{\sum_j \operatorname{Var}(y_j)}"
    )
    where = r"$\lambda_k$ are the eigenvalues of $\operatorname{Cov}(y)$"
    degenerate = (
        "A layer in which nothing varies scores 0, and so does the share of a constant channel."
    )
    paper = "Roy and Vetterli (2007), The effective rank, EUSIPCO"

    def _whole(self, m2: Tensor) -> Tensor:
        return spectral_entropy(normalised_spectrum(m2))


@Lens.register("participation_ratio")
class ParticipationRatio(_OfCovariance):
    """Number of directions along which the channels vary, by their share, `()`, no unit.

    Between 1, all channels vary along one direction, and C, alike in all. `.share` is every
    channel's share of the layer's variance, `(channels,)`.
    """

    formula = (
        r"\frac{\bigl(\sum_k \lambda_k\bigr)^2}{\sum_k \lambda_k^2}, \qquad "
        r"\text{share: } \frac{\operatorname{Var}(y_i)}{\sum_j \operatorname{Var}(y_j)}"
    )
    where = r"$\lambda_k$ are the eigenvalues of $\operatorname{Cov}(y)$"
    degenerate = (
        "A layer in which nothing varies scores 0, and so does the share of a constant channel."
    )
    paper = (
        "Gao et al. (2017), A theory of multineuronal dimensionality, dynamics and measurement, "
        "bioRxiv 214262"
    )

    def _whole(self, m2: Tensor) -> Tensor:
        return participation_ratio(m2)


@Lens.register("eigenvalue_alignment")
class EigenvalueAlignment(_Spectrum):
    """How far the normalised spectrum of a layer is that of a reference, `()`, in [0, 1].

    1 minus the total variation distance of the two, largest eigenvalue first: 1 for equal spectra.
    The reference comes from `reference=`, `{layer: eigenvalues}` or `{layer: covariance}`, given to
    `prepare`, `analyse` or `run`; without it this is an error. It may have another number of
    eigenvalues than the layer has channels, and any scale.
    """

    formula = r"1 - \tfrac12 \sum_k \lvert p_k - q_k \rvert"
    where = (
        r"$p_k$ are the eigenvalues of $\operatorname{Cov}(y)$, $q_k$ those of the reference, both "
        "sorted, over their sum; the shorter list ends with zeros"
    )
    degenerate = "A layer in which nothing varies scores 0, unless nothing varies in the reference."

    @classmethod
    def example(cls, model: ModelWrapper) -> tuple[Lens, dict[str, Any]]:
        """Return the lens, and spectra in which every eigenvalue is one more than the next."""
        spectra = {
            name: torch.arange(1.0, each.channels + 1) for name, each in model.layers.items()
        }
        return cls(), {"reference": spectra}

    def prepare(
        self, model: Any, *, reference: Mapping[str, Tensor] | None = None, **kwargs: Any
    ) -> ModelWrapper:
        """Return the wrapped model, which from now on knows the spectra to compare with."""
        wrapper = super().prepare(model, **kwargs)
        if reference is not None:
            if not isinstance(reference, Mapping):
                raise InvalidValueError(
                    f"reference is a {type(reference).__name__}, expected {{layer: eigenvalues}}"
                )
            spectra = {name: _written(name, given) for name, given in reference.items()}
            wrapper.references["spectra"] = spectra
        if "spectra" not in wrapper.references:
            raise MissingTargetsError(
                f"lens {self.name!r} needs reference=, {{layer: eigenvalues or covariance}}"
            )
        return wrapper

    def wanted(self, model: ModelWrapper) -> dict[str, list[Read]]:
        """Return the reads of every layer, its reference among them."""
        wanted, spectra = super().wanted(model), model.references["spectra"]
        for name, reads in wanted.items():
            if name not in spectra:
                raise MissingTargetsError(
                    f"lens {self.name!r}, layer {name!r}: reference= has no spectrum of it"
                    f"{nearest(name, spectra)}; it has {', '.join(spectra)}"
                )
            reads.append(Read("weight", ReferenceSpectrum, {"spectrum": spectra[name]}))
        return wanted

    def _named(
        self, found: Mapping[Any, Statistic], block: tuple[int, int] | None = None
    ) -> dict[str, Any]:
        references = [s for s in found.values() if isinstance(s, ReferenceSpectrum)]
        if not references:
            raise MissingTargetsError(f"lens {self.name!r} needs reference=: run it on a module")
        return {**super()._named(found, block), "reference": references[0]}

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        mine = normalised_spectrum(statistics["values"].m2)
        theirs = statistics["reference"].eigenvalues.to(mine)
        return spectral_overlap(mine, ratio(theirs, theirs.sum()))


@Lens.register("spectral_clustering_score")
class SpectralClusteringScore(_Spectrum):
    """How clearly the channels of a layer fall into two or more groups, `()`, no unit.

    The largest gap between neighbouring eigenvalues of the normalised Laplacian of abs(rho), from
    the second on: k groups that have nothing in common have k eigenvalues 0. Channels that are all
    related alike score 0, those in one group included; m channels in each of several groups of
    copies score m / (m - 1).
    """

    formula = (
        r"\max_{k \ge 2} \lambda_{k+1} - \lambda_k, \qquad "
        r"L = I - D^{-1/2} A D^{-1/2}, \quad A_{ij} = \lvert \rho_{ij} \rvert, \quad A_{ii} = 0"
    )
    where = (
        r"$\lambda_1 \le \lambda_2 \le \dots$ are the eigenvalues of $L$, $D$ the diagonal of the "
        r"row sums of $A$; channels that do not vary are left out"
    )
    degenerate = (
        "Constant channels are left out; fewer than three channels score 0. A channel that "
        "correlates with no other is a group of its own."
    )
    paper = "von Luxburg (2007), A tutorial on spectral clustering, Statistics and Computing 17"

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        m2 = statistics["values"].m2
        varies = m2.diagonal() > 0
        return cluster_gap(correlation(m2[varies][:, varies]))


def _written(layer: str, given: Any) -> str:
    """The eigenvalues of a reference, largest first, as text that gives the same numbers."""
    values = torch.as_tensor(given, dtype=torch.float64, device="cpu")
    if values.ndim == 2 and values.shape[0] == values.shape[1]:
        values = torch.linalg.eigvalsh(values).clamp_(min=0)
    if values.ndim != 1 or not bool((values >= 0).all()) or bool(values.isinf().any()):
        raise InvalidValueError(
            f"the reference of layer {layer!r} has shape {tuple(values.shape)}, expected "
            "eigenvalues (k,), finite and 0 or more, or a covariance (k, k)"
        )
    return " ".join(map(repr, values.sort(descending=True).values.tolist()))
