"""Loading models by name or folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nodelens.errors import OutputError
from nodelens.model.wrapper import ModelWrapper

__all__ = ["load_model"]


def load_model(name_or_path: str, **options: Any) -> ModelWrapper:
    """Return a Hugging Face model, by id, folder or GGUF file, with its tokenizer.

    `options` go to `from_pretrained` (`dtype=`, `device_map=`, `gguf_file=`, ...). Models with a
    language model's head load as such, others as bare encoders. Remote code is never run unless
    `trust_remote_code=True` is among the options.

    Raises OutputError when nothing can be loaded from there.
    """
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(name_or_path, **_shared(options))
        causal = any(a.endswith(("ForCausalLM", "LMHeadModel")) for a in config.architectures or ())
        auto = transformers.AutoModelForCausalLM if causal else transformers.AutoModel
        wrapper = ModelWrapper(auto.from_pretrained(name_or_path, **options))
    except (OSError, ValueError) as failure:
        raise OutputError(f"no model could be loaded from {name_or_path!r}: {failure}") from failure
    wrapper.tokenizer = _tokenizer(name_or_path, options)
    return wrapper


def _shared(options: dict[str, Any]) -> dict[str, Any]:
    names = ("gguf_file", "revision", "trust_remote_code", "local_files_only")
    return {name: options[name] for name in names if name in options}


def _tokenizer(name_or_path: str, options: dict[str, Any]) -> Any:
    import transformers

    folder = Path(name_or_path)
    files = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model")
    if folder.is_dir() and not any((folder / f).exists() for f in files):
        return None
    return transformers.AutoTokenizer.from_pretrained(name_or_path, **_shared(options))
