"""Writing files whole or not at all, and reading them back."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from nodelens.errors import NodeLensError, OutputError

__all__ = ["intact", "load_tensors", "save_tensors", "write_bytes", "write_text"]

_DAMAGE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What reading data raises that is cut off, has other types, or is nested without end."""


@contextmanager
def intact(path: str | os.PathLike[str]) -> Iterator[None]:
    """Within, content that is not what was saved at `path` is OutputError; our own errors pass."""
    try:
        yield
    except NodeLensError:
        raise
    except _DAMAGE as damage:
        raise OutputError(
            f"{os.fspath(path)!r} is damaged: {type(damage).__name__}: {str(damage)[:200]}"
        ) from damage


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file through a temporary one beside it, so that a reader never sees half of it.

    Raises OutputError when the folder cannot be made or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except (OSError, ValueError) as failure:
        # A name with a NUL, or with half a character, is a ValueError.
        reason = getattr(failure, "strerror", None) or failure
        raise OutputError(f"cannot write {str(path)!r}: {reason}") from failure


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, whole or not at all; OutputError for text that is none."""
    try:
        data = text.encode()
    except UnicodeEncodeError as failure:
        raise OutputError(f"cannot write {str(path)!r}: {failure}") from failure
    write_bytes(path, data)


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors as safetensors, whole or not at all."""
    from safetensors.torch import save

    plain = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    write_bytes(path, save(plain, dict(metadata or {})))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return a safetensors file's tensors and its metadata; OutputError for any other file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (OSError, SafetensorError, ValueError) as failure:
        raise OutputError(f"cannot read {str(path)!r}: {failure}") from failure


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
