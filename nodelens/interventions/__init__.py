"""Silencing channels while the weights stay as they are, and what that costs."""

from nodelens.interventions.silence import (
    Evaluation,
    channel_indices,
    evaluate,
    known_layers,
    silenced_outputs,
    silencing,
)

__all__ = [
    "Evaluation",
    "channel_indices",
    "evaluate",
    "known_layers",
    "silenced_outputs",
    "silencing",
]
