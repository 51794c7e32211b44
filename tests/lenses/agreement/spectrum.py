"""The lenses on the spectrum of a layer beside their oracles."""

from __future__ import annotations

from tests.lenses.agreement.entry import CORRELATION, Entry, of_outputs
from tests.oracles import spectrum

ENTRIES = [
    Entry("activation_cosine_similarity", of_outputs(spectrum.mean_cosine), near_zero=CORRELATION),
    Entry("eigenvalue_entropy", of_outputs(spectrum.spectral_entropy), near_zero=CORRELATION),
    Entry("participation_ratio", of_outputs(spectrum.participation_ratio)),
    Entry("spectral_clustering_score", of_outputs(spectrum.cluster_gap), near_zero=CORRELATION),
]
