"""The pruning strategies; importing this registers them."""

import nodelens.pruning.strategies.alignment
import nodelens.pruning.strategies.chance
import nodelens.pruning.strategies.chip
import nodelens.pruning.strategies.composite
import nodelens.pruning.strategies.eigenvector
import nodelens.pruning.strategies.flap
import nodelens.pruning.strategies.fpgm
import nodelens.pruning.strategies.generalized_taylor
import nodelens.pruning.strategies.gradient
import nodelens.pruning.strategies.hrank
import nodelens.pruning.strategies.llm_pruner
import nodelens.pruning.strategies.magnitude
import nodelens.pruning.strategies.metric
import nodelens.pruning.strategies.network_slimming
import nodelens.pruning.strategies.outred
import nodelens.pruning.strategies.owl
import nodelens.pruning.strategies.ria
import nodelens.pruning.strategies.slimllm
import nodelens.pruning.strategies.sparsegpt
import nodelens.pruning.strategies.supernodes
import nodelens.pruning.strategies.wanda  # noqa: F401

__all__: list[str] = []
