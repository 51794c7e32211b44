"""What a network, whole or pruned, is worth on a part of the data, by the run's one protocol."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from nodelens.configs import Config
from nodelens.configs.sections.evaluation import EvaluationSection
from nodelens.errors import MissingPackageError
from nodelens.experiments.language import BLOCK_SIZE, tokenizer_of
from nodelens.experiments.stage import Run
from nodelens.interventions import evaluate, perplexity
from nodelens.interventions.channels import Condition
from nodelens.interventions.lm_eval import evaluate_tasks, harness
from nodelens.report.channels import wilson

__all__ = ["check_protocol", "judge", "measured_on", "protocol_of"]

_NORMAL = 1.959963984540054
"""Standard errors to either side that hold 95% of a normal distribution."""


def judge(
    run: Run, model: Any, condition: Condition | None = None, *, split: str = "test"
) -> dict[str, Any]:
    """Return what a network does on a part of the data, with a condition's channels silenced.

    Of a classifier: `accuracy`, its 95% interval `accuracy_low` and `accuracy_high` (Wilson's),
    `top5` and `loss` (nats). Of a language model: `perplexity` with `perplexity_low` and
    `perplexity_high` (from its standard error over windows) and `loss`; on the test part, what its
    `tasks` say as well. `rows` are the predictions counted.
    """
    given = Condition() if condition is None else condition
    if not run.config.is_language_model:
        return _classified(run, model, given, split)
    found = _predicted(run, model, given, split)
    return {**found, **_tasks(run, model, given)} if split == "test" else found


def check_protocol(run: Run) -> None:
    """Raise ConfigError for an evaluation that test part or installation are too small for."""
    section = _section(run.config)
    if section.rows is not None and section.rows > len(run.splits.test):
        raise run.config.error(
            ("evaluation", "rows"),
            f"{section.rows} rows, but the test part has {len(run.splits.test)}",
        )
    if not run.config.is_language_model:
        return
    try:
        _ = section.tasks and harness()
    except MissingPackageError as error:
        raise run.config.error(("evaluation", "tasks"), str(error)) from error
    size, tokens = _window(run.config), len(_stream(run, "test"))
    if tokens < size:
        key = "tokens" if section.block_size is None else "block_size"
        raise run.config.error(
            ("evaluation", key), f"{tokens} test tokens, expected one window of {size}"
        )
    if section.stride is not None and section.stride > size:
        raise run.config.error(
            ("evaluation", "stride"),
            f"{section.stride}, expected no more than the {size} tokens of a window",
        )


def protocol_of(config: Config) -> str:
    """Return how networks are judged, in a sentence or two."""
    section = _section(config)
    if not config.is_language_model:
        rows = "all" if section.rows is None else f"the first {section.rows:,}"
        return (
            f"Top-1 and top-5 accuracy and mean cross-entropy, in nats, on {rows} rows of the test"
            " part; intervals of an accuracy are Wilson's, 95%."
        )
    tasks = f" Tasks of lm-evaluation-harness: {', '.join(section.tasks)}." if section.tasks else ""
    return (
        f"Perplexity is exp of the mean loss of every next token in {_windows(config)}; its 95%"
        f" interval is from the standard error over windows.{tasks}"
    )


def measured_on(config: Config) -> str:
    """Return what to print behind a perplexity: what it was taken on; of an accuracy, nothing."""
    return f" ({_windows(config)})" if config.is_language_model else ""


def _windows(config: Config) -> str:
    section, size = _section(config), _window(config)
    tokens = "all" if section.tokens is None else f"the first {section.tokens:,}"
    return (
        f"windows of {size} tokens, one every {section.stride or size}, of {tokens} tokens of the"
        f" test part, in {config.model.options.get('dtype', 'float32')}"
    )


def _section(config: Config) -> EvaluationSection:
    return config.evaluation or EvaluationSection()


def _classified(run: Run, model: Any, condition: Condition, split: str) -> dict[str, Any]:
    part = getattr(run.splits, split)
    rows = _section(run.config).rows if split == "test" else None
    part = TensorDataset(*(tensor[:rows] for tensor in part.tensors))
    found = evaluate(model, run.splits.batches(part), condition)
    told = {"accuracy": found.accuracy, "top5": found.top5, "loss": found.loss, "rows": found.rows}
    if found.accuracy is not None:
        low, high = wilson(found.accuracy, found.rows)
        told |= {"accuracy_low": low, "accuracy_high": high}
    return told


def _predicted(run: Run, model: Any, condition: Condition, split: str) -> dict[str, Any]:
    found = perplexity(
        model,
        _stream(run, split),
        block_size=_window(run.config),
        stride=_section(run.config).stride,
        split=split,
        batch_size=run.config.dataset.batch_size,
        channels=condition,
    )
    told = {"perplexity": found.value, "loss": found.loss, "rows": found.tokens}
    if found.standard_error is not None and math.isfinite(found.value):
        # The interval is of the loss, whose errors are nearly normal.
        reach = math.exp(_NORMAL * found.standard_error / found.value)
        told |= {"perplexity_low": found.value / reach, "perplexity_high": found.value * reach}
    return told


def _tasks(run: Run, model: Any, condition: Condition) -> dict[str, float]:
    section = _section(run.config)
    if not section.tasks:
        return {}
    found = evaluate_tasks(
        model,
        section.tasks,
        tokenizer=tokenizer_of(run.config),
        channels=condition,
        batch_size=run.config.dataset.batch_size,
        limit=section.task_limit,
    )
    results: Mapping[str, Mapping[str, Any]] = found["results"]
    return {
        f"{task}:{metric.partition(',')[0]}": float(value)
        for task, metrics in results.items()
        for metric, value in metrics.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def _stream(run: Run, split: str) -> Tensor:
    """Return the tokens of a part, one after another: its blocks are neighbours."""
    blocks: Tensor = getattr(run.splits, split).tensors[0]
    tokens = torch.flatten(blocks)
    return tokens[: _section(run.config).tokens] if split == "test" else tokens


def _window(config: Config) -> int:
    return _section(config).block_size or config.dataset.block_size or BLOCK_SIZE
