"""Supernodes and SCAR on a small open language model: which of the published claims hold there."""
