"""The lenses of a configuration, made and tried on the network before any work is done."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from nodelens.composite import CompositeLens
from nodelens.configs import Config
from nodelens.errors import InvalidValueError, NodeLensError, nearest
from nodelens.lens import Lens
from nodelens.model import ModelWrapper

__all__ = ["build_lens", "check_lenses", "check_score", "wants_initial_weights"]


def build_lens(config: Config) -> CompositeLens:
    """Return all lenses of a configuration as one, for one forward pass a batch."""
    lenses = [_one(config, number) for number in range(len(config.lenses))]
    try:
        return CompositeLens(lenses)
    except InvalidValueError as error:
        raise config.error(("lenses",), str(error)) from error


def check_lenses(
    config: Config,
    network: nn.Module,
    inputs: Tensor,
    initial_weights: Mapping[str, Tensor] | None,
) -> None:
    """Raise ConfigError, with file and line, for the first lens that cannot score the network.

    `inputs` are run through it once, since some lenses can only tell from a pass.
    """
    model = ModelWrapper(network)
    model.route(model.prepare_batch(inputs))
    for number in range(len(config.lenses)):
        lens = _one(config, number)
        options: dict[str, Any] = {}
        if wants_initial_weights(lens):
            if initial_weights is None:
                raise config.error(
                    ("lenses", number),
                    f"{lens.name} compares with the weights before training, and a checkpoint has"
                    " none; expected model.initial_checkpoint as well",
                )
            options["initial_weights"] = initial_weights
        try:
            lens.prepare(model, **options)
        except NodeLensError as error:
            raise config.error(("lenses", number), str(error)) from error


def check_score(config: Config, path: tuple[str | int, ...], score: str | None) -> None:
    """Raise ConfigError, with the nearest name, unless this file's lenses give the score."""
    lens = build_lens(config)
    given = (str(score) == label or str(score).startswith(f"{label}.") for label in lens.labels)
    if score is not None and not any(given):
        raise config.error(
            path,
            f"{score!r} is not a score of this file's lenses{nearest(score, lens.labels)};"
            f" they give {', '.join(lens.labels)}",
        )


def wants_initial_weights(lens: Lens) -> bool:
    """Return whether the lens, or a part of it, compares with the weights before training."""
    parts = lens.lenses if isinstance(lens, CompositeLens) else [lens]
    return any("initial_weights" in inspect.signature(part.prepare).parameters for part in parts)


def _one(config: Config, number: int) -> Lens:
    entry = config.lenses[number]
    try:
        return Lens.from_name(entry.name, **entry.options)
    except KeyError as error:
        raise config.error(("lenses", number, "name"), str(error)) from error
    except NodeLensError as error:
        raise config.error(("lenses", number), str(error)) from error
