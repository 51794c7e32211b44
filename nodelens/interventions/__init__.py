"""Silencing channels while the weights stay as they are, and what that costs."""

from nodelens.interventions.channels import (
    Condition,
    channel_indices,
    head_indices,
    known_layers,
    parts_of,
)
from nodelens.interventions.damage import (
    channel_losses,
    channel_predictions,
    single_channel_damage,
)
from nodelens.interventions.evaluation import (
    Comparison,
    Evaluation,
    evaluate,
    evaluate_conditions,
)
from nodelens.interventions.hooks import silenced
from nodelens.interventions.lm_eval import evaluate_tasks
from nodelens.interventions.means import means
from nodelens.interventions.perplexity import Perplexity, perplexity
from nodelens.interventions.silence import silenced_outputs, silencing

__all__ = [
    "Comparison",
    "Condition",
    "Evaluation",
    "Perplexity",
    "channel_indices",
    "channel_losses",
    "channel_predictions",
    "evaluate",
    "evaluate_conditions",
    "evaluate_tasks",
    "head_indices",
    "known_layers",
    "means",
    "parts_of",
    "perplexity",
    "silenced",
    "silenced_outputs",
    "silencing",
    "single_channel_damage",
]
