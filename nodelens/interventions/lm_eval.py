"""The tasks of lm-evaluation-harness, by its own API; it comes with the extra `lm-eval`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from nodelens.errors import InvalidValueError, MissingPackageError
from nodelens.interventions.channels import Channels, Condition, Value, as_condition
from nodelens.interventions.hooks import silenced
from nodelens.model.session import untouched
from nodelens.model.wrapper import wrap

__all__ = ["evaluate_tasks", "harness"]


def evaluate_tasks(
    model: Any,
    tasks: str | Sequence[str],
    *,
    tokenizer: Any = None,
    channels: Channels | Condition | None = None,
    heads: Channels | None = None,
    value: Value = "zero",
    site: str = "output",
    batch_size: int = 1,
    **options: Any,
) -> dict[str, Any]:
    """Return what `lm_eval.simple_evaluate` returns for a loaded Hugging Face model.

    `tasks` are the harness's names and `options` its own (`limit`, `num_fewshot`, ...). With
    `channels` or `heads` they are silent in every call that the harness makes. The model is held
    in evaluation mode and is as it was afterwards.

    Raises MissingPackageError without the package, InvalidValueError for an option that would run
    code which a model wrote: that is never done here.
    """
    lm_eval, huggingface = harness()
    if options.get("confirm_run_unsafe_code"):
        raise InvalidValueError(
            "confirm_run_unsafe_code is True, and code that a model wrote is never run here: "
            "leave it out, and choose tasks that need none"
        )
    wrapper = wrap(model)
    tokenizer = tokenizer if tokenizer is not None else wrapper.tokenizer
    condition = as_condition(channels, heads=heads, value=value, site=site)
    example = {"input_ids": torch.zeros(1, 2, dtype=torch.long)}
    with silenced(wrapper, condition, example=example), untouched(wrapper.module):
        # The harness calls eval() and ties weights that are tied already.
        adapter = huggingface.HFLM(
            pretrained=wrapper.module, tokenizer=tokenizer, batch_size=batch_size
        )
        names = [tasks] if isinstance(tasks, str) else list(tasks)
        found: dict[str, Any] = lm_eval.simple_evaluate(model=adapter, tasks=names, **options)
    return found


def harness() -> tuple[Any, Any]:
    """Return `lm_eval` and its adapter of Hugging Face models; MissingPackageError without it."""
    try:
        import lm_eval
        import lm_eval.models.huggingface as huggingface
    except ImportError as missing:
        raise MissingPackageError(
            "the tasks of lm-evaluation-harness need the package lm-eval, which is not installed "
            f"whole ({missing}): pip install 'nodelens[lm-eval]'"
        ) from missing
    return lm_eval, huggingface
