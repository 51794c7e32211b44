"""All lenses at once on a small network; one thread, as more would only wait for each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from nodelens import CompositeLens, Lens, ModelWrapper
from nodelens.testing.subjects import Subject


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def wrapped(subject: Subject, dtype: torch.dtype = torch.float32) -> ModelWrapper:
    """Return the network of a subject, which has seen a batch."""
    model = ModelWrapper(subject.model().to(dtype))
    inputs, targets = subject.batch()
    inputs = inputs if isinstance(inputs, dict) else inputs.to(dtype)
    model.route(model.prepare_batch((inputs, targets)))
    return model


def every_lens(model: ModelWrapper) -> tuple[CompositeLens, dict[str, Any]]:
    """Return all lenses that can score the model as one, and the options of a run."""
    made = [Lens.named(name).example(model) for name in Lens.names()]
    able = [(lens, own) for lens, own in made if not lens.edits and lens.is_compatible(model)]
    options = {name: value for _, own in able for name, value in own.items()}
    return CompositeLens([lens for lens, _ in able]), options
