"""Keeping a smaller model that no configuration describes: a manifest and safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nodelens.errors import IncompatibleModelError, InvalidValueError, OutputError
from nodelens.files import intact, load_tensors, save_tensors, write_text
from nodelens.model import ModelWrapper
from nodelens.model.copying import independent_copy
from nodelens.pruning.shrink import Shrunk

__all__ = ["MANIFEST", "WEIGHTS", "load_shrunk", "save_shrunk"]

MANIFEST = "nodelens_shrunk.json"
WEIGHTS = "model.safetensors"
_FORMAT = 1


def save_shrunk(shrunk: Shrunk, folder: str | Path) -> Path:
    """Write a smaller model to `folder` and return it: the manifest, and the weights.

    The manifest says which channels of the original are left in which layer, and the widths that
    modules have now. Raises OutputError when it cannot be written.
    """
    folder = Path(folder)
    save_tensors(folder / WEIGHTS, shrunk.model.state_dict())
    manifest = {
        "format": _FORMAT,
        "architecture": type(shrunk.model).__name__,
        "kept": {name: kept.tolist() for name, kept in shrunk.kept.items()},
        "kept_inputs": {name: kept.tolist() for name, kept in shrunk.kept_inputs.items()},
        "resized": {
            name: {key: list(pair) for key, pair in changed.items()}
            for name, changed in shrunk.resized.items()
        },
    }
    write_text(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    return folder


def load_shrunk(folder: str | Path, model: Any) -> nn.Module:
    """Return the smaller model of a folder, from an instance of the original architecture.

    `model` is that instance, with any weights, or the Hugging Face configuration of the original;
    it is not changed. Raises OutputError for a folder without such a model,
    IncompatibleModelError when the original is another one.
    """
    folder = Path(folder)
    manifest = _manifest(folder / MANIFEST)
    weights, _ = load_tensors(folder / WEIGHTS)
    small = _fresh(model, manifest)
    with intact(folder / MANIFEST):
        for name, changed in manifest["resized"].items():
            _resize(small, name, changed)
        _fill(small, weights)
    return small


def _manifest(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
    except OSError as failure:
        raise OutputError(f"no shrunk model in {str(path.parent)!r}: {failure}") from failure
    with intact(path):
        manifest = json.loads(text)
        if manifest["format"] != _FORMAT:
            raise OutputError(f"{str(path)!r} has format {manifest['format']}, expected {_FORMAT}")
        return dict(manifest)


def _fresh(model: Any, manifest: Mapping[str, Any]) -> nn.Module:
    wanted = manifest["architecture"]
    if isinstance(model, ModelWrapper):
        model = model.module
    if hasattr(model, "to_dict") and hasattr(model, "model_type"):
        model = _from_configuration(model, wanted)
    if not isinstance(model, nn.Module):
        raise InvalidValueError(
            f"load_shrunk needs a {wanted} or its configuration, and got {type(model).__name__}"
        )
    if type(model).__name__ != wanted:
        raise IncompatibleModelError(
            f"the shrunk model was a {wanted}, and got a {type(model).__name__}"
        )
    return independent_copy(model).eval()


def _from_configuration(config: Any, wanted: str) -> nn.Module:
    import transformers

    kind = getattr(transformers, wanted, None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise IncompatibleModelError(f"transformers has no model {wanted!r}: give an instance")
    with torch.random.fork_rng(devices=[]):
        return kind(config)


def _resize(small: nn.Module, name: str, changed: Mapping[str, Any]) -> None:
    modules = dict(small.named_modules())
    for key, (before, after) in changed.items():
        found = getattr(modules.get(name), key, None)
        now = list(found) if isinstance(found, tuple) else found
        if now != before or type(found) not in (int, tuple):
            raise IncompatibleModelError(
                f"layer {name!r}: {key} is {found}, and was {before} in the model that was shrunk"
            )
        setattr(modules[name], key, tuple(after) if isinstance(found, tuple) else int(after))


def _fill(small: nn.Module, weights: Mapping[str, Tensor]) -> None:
    own = small.state_dict()
    missing = sorted(own.keys() ^ weights.keys())
    if missing:
        raise IncompatibleModelError(f"the model and the saved one differ in {missing[0]!r}")
    for name, tensor in weights.items():
        if own[name].shape != tensor.shape:
            _replace(small, name, tensor.to(own[name].device))
    small.load_state_dict(dict(weights))


def _replace(small: nn.Module, name: str, tensor: Tensor) -> None:
    home, _, leaf = name.rpartition(".")
    module = small.get_submodule(home)
    old = getattr(module, leaf)
    if isinstance(old, nn.Parameter):
        setattr(module, leaf, nn.Parameter(tensor.to(old.dtype), requires_grad=old.requires_grad))
    else:
        setattr(module, leaf, tensor)
