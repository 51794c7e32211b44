"""The pruning strategies; importing this registers them."""

import nodelens.pruning.strategies.alignment
import nodelens.pruning.strategies.chance
import nodelens.pruning.strategies.composite
import nodelens.pruning.strategies.eigenvector
import nodelens.pruning.strategies.generalized_taylor
import nodelens.pruning.strategies.gradient
import nodelens.pruning.strategies.magnitude
import nodelens.pruning.strategies.metric
import nodelens.pruning.strategies.supernodes  # noqa: F401

__all__: list[str] = []
