"""Batches, the shares of a stream, and data sets that come with Python packages."""

from nodelens.data.batches import BATCH_OPTIONS, Batch, as_batch, as_mask
from nodelens.data.disjoint import Fingerprint, calibration_and_evaluation
from nodelens.data.share import Share

__all__ = [
    "BATCH_OPTIONS",
    "Batch",
    "Fingerprint",
    "Share",
    "as_batch",
    "as_mask",
    "calibration_and_evaluation",
]
