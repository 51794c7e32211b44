"""Loading models by name or folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nodelens.errors import OutputError, closest, nearest
from nodelens.model.importing import bars_of_text
from nodelens.model.packaged import packaged_names
from nodelens.model.wrapper import ModelWrapper

__all__ = ["load_model", "load_tokenizer"]

_PATIENCE = 5.0
"""Seconds that the hub has for an answer whether it has a model."""


def load_model(name_or_path: str, *, auto: Any = None, **options: Any) -> ModelWrapper:
    """Return a Hugging Face model, by id, folder or GGUF file, with its tokenizer.

    `options` go to `from_pretrained` (`dtype=`, `device_map=`, `gguf_file=`, ...). Models with a
    language model's head load as such, others as bare encoders. Remote code is never run unless
    `trust_remote_code=True` is among the options. With `auto`, a class of transformers such as
    AutoModelForImageClassification, that loads it, and no tokenizer.

    Raises OutputError when nothing can be loaded from there.
    """
    with bars_of_text():
        import transformers

    _check_reachable(name_or_path, options)
    try:
        if auto is not None:
            return ModelWrapper(auto.from_pretrained(name_or_path, **options))
        config = transformers.AutoConfig.from_pretrained(name_or_path, **_shared(options))
        causal = any(a.endswith(("ForCausalLM", "LMHeadModel")) for a in config.architectures or ())
        auto = transformers.AutoModelForCausalLM if causal else transformers.AutoModel
        wrapper = ModelWrapper(auto.from_pretrained(name_or_path, **options))
    except (OSError, ValueError) as failure:
        raise OutputError(f"no model could be loaded from {name_or_path!r}: {failure}") from failure
    wrapper.tokenizer = _tokenizer(name_or_path, options)
    return wrapper


def load_tokenizer(name_or_path: str, **options: Any) -> Any:
    """Return the tokenizer of a Hugging Face model alone, None for a folder that has none.

    `options` are those of :func:`load_model`. Raises OutputError when nothing can be loaded.
    """
    _check_reachable(name_or_path, options)
    try:
        return _tokenizer(name_or_path, options)
    except (OSError, ValueError) as failure:
        raise OutputError(f"no tokenizer in {name_or_path!r}: {failure}") from failure


def _check_reachable(name: str, options: dict[str, Any]) -> None:
    """Raise OutputError for a name that is neither on this machine nor on the hub.

    transformers would try again and again for half a minute when the hub cannot be reached.
    """
    import huggingface_hub
    from huggingface_hub import errors

    if Path(name).exists() or options.get("local_files_only") or _is_cached(name, options):
        return
    try:
        known = {k: options[k] for k in ("revision", "token") if k in options}
        huggingface_hub.model_info(name, timeout=_PATIENCE, **known)
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as failure:
        raise _nowhere(name, failure) from failure
    except errors.HfHubHTTPError:
        return  # Some mirrors answer to downloads alone, so it is tried.
    except (errors.HTTPError, OSError) as failure:  # type: ignore[attr-defined]
        raise _nowhere(name, failure) from failure


def _nowhere(name: str, failure: Exception) -> OutputError:
    reason = (str(failure).strip() or type(failure).__name__).partition("\n")[0]
    return OutputError(
        f"there is no model {name!r} on this machine{_nearest_model(name)}, "
        f"and the hub gives none: {reason}"
    )


def _is_cached(name: str, options: dict[str, Any]) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(
            name,
            options.get("gguf_file", "config.json"),
            cache_dir=options.get("cache_dir"),
            revision=options.get("revision"),
        )
    except HFValidationError:
        return False
    return isinstance(found, str)


def _nearest_model(name: str) -> str:
    """The nearest packaged model, or the nearest folder or GGUF file beside where it should be."""
    if packaged := closest(Path(name).name, packaged_names()):
        return f" (did you mean packaged_model({packaged!r})?)"
    folder = Path(name).parent
    beside = folder.iterdir() if folder.is_dir() else ()
    found = {str(f) for f in beside if f.suffix == ".gguf" or (f / "config.json").is_file()}
    return nearest(str(Path(name)), sorted(found))


def _shared(options: dict[str, Any]) -> dict[str, Any]:
    names = ("gguf_file", "revision", "trust_remote_code", "local_files_only")
    return {name: options[name] for name in names if name in options}


def _tokenizer(name_or_path: str, options: dict[str, Any]) -> Any:
    with bars_of_text():
        import transformers

    folder = Path(name_or_path)
    files = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model")
    if folder.is_dir() and not any((folder / f).exists() for f in files):
        return None
    return transformers.AutoTokenizer.from_pretrained(name_or_path, **_shared(options))
