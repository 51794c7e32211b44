"""Accuracy against channels removed, for every strategy and for chance, on two trained CNNs."""
