"""The pruning strategies; importing this registers them."""

import nodelens.pruning.strategies.magnitude
import nodelens.pruning.strategies.metric  # noqa: F401

__all__: list[str] = []
