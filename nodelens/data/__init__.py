"""Batches, and data sets that come with Python packages."""

from nodelens.data.batches import BATCH_OPTIONS, Batch, as_batch, as_mask

__all__ = ["BATCH_OPTIONS", "Batch", "as_batch", "as_mask"]
