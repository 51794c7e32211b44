"""The network of a configuration: built, and read back from checkpoints."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from nodelens.configs import Config
from nodelens.errors import NodeLensError, OutputError, UnknownNameError
from nodelens.experiments.folder import RunFolder
from nodelens.experiments.language import load_language_model, loading_options
from nodelens.experiments.splits import Splits
from nodelens.files import load_tensors
from nodelens.model.vision import vision_model

__all__ = [
    "EPOCH",
    "INITIAL",
    "TRAINED",
    "build_network",
    "load_network",
    "read_weights",
    "stored_weights",
]

Weights = dict[str, Tensor]

TRAINED = "checkpoints/trained.safetensors"
EPOCH = "checkpoints/epoch-{}.safetensors"
INITIAL = "checkpoints/initial.safetensors"


def build_network(config: Config, splits: Splits) -> nn.Module:
    """Return the network with its initial weights, drawn from the seed of the experiment.

    A language model comes with the weights it has.
    """
    if config.is_language_model:
        return load_language_model(config)
    options = {"seed": config.experiment.seed, **loading_options(config)}
    try:
        return vision_model(
            config.model.name, shape=splits.shape, classes=splits.classes, **options
        )
    except (UnknownNameError, OutputError) as error:
        raise config.error(("model", "name"), str(error)) from error
    except (NodeLensError, TypeError, ValueError, RuntimeError) as error:
        raise config.error(("model", "options"), str(error)) from error


def stored_weights(folder: RunFolder) -> dict[str, Weights | None]:
    """Return the `trained` and `initial` weights of a run.

    The initial ones are None for a checkpoint that came without them, both for a language model,
    whose weights stay where they are.
    """
    names = {"trained": TRAINED, "initial": INITIAL}
    return {
        key: folder.read_tensors(name) if folder.has(name) else None for key, name in names.items()
    }


def load_network(config: Config, splits: Splits, weights: Weights | None) -> nn.Module:
    """Return the network with these weights, in evaluation mode; None leaves a language model's."""
    network = build_network(config, splits)
    if not config.is_language_model:
        assert weights is not None, "the network stage writes them"
        network.load_state_dict(weights)
    return network.eval()


def read_weights(config: Config, key: str, network: nn.Module) -> dict[str, Tensor]:
    """Return the weights in the file that `model.<key>` names, once they fit the network."""
    path = getattr(config.model, key)
    try:
        weights = load_tensors(Path(path))[0]
    except OutputError as error:
        raise config.error(("model", key), str(error)) from error
    expected = network.state_dict()
    problems = [
        f"{name} is {_shape(weights.get(name))}, expected {_shape(expected.get(name))}"
        for name in dict.fromkeys([*expected, *weights])
        if _shape(weights.get(name)) != _shape(expected.get(name))
    ]
    if problems:
        raise config.error(
            ("model", key),
            f"{path!r} does not fit {config.model.name!r}: {'; '.join(problems[:4])}",
        )
    return weights


def _shape(tensor: torch.Tensor | None) -> str:
    return "missing" if tensor is None else str(tuple(tensor.shape))
