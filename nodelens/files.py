"""Writing files whole or not at all, and reading them back."""

from __future__ import annotations

import glob
import hashlib
import importlib.util
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nodelens.errors import InvalidValueError, NodeLensError, OutputError

__all__ = [
    "as_saved",
    "intact",
    "load_metadata",
    "load_tensors",
    "package_folder",
    "remove_leftovers",
    "save_tensors",
    "write_bytes",
    "write_text",
]

_DAMAGE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What reading data raises that is cut off, has other types, or is nested without end."""


_OURS = "content"
"""The one entry of our files' metadata, in JSON: entries of their own would have no order."""
_CHECKSUM = "sha256"
"""Tells the content of a file."""


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


def write_bytes(path: Path, data: bytes, *, make_folder: bool = True) -> None:
    """Write a file through a temporary one beside it, so that a reader never sees half of it.

    The data are on the disk before the name is theirs, so that a crash leaves the old file or the
    new one. Raises OutputError when the folder cannot be made or written, or the disk is full.
    """
    _write(path, lambda temporary: temporary.write_bytes(data), make_folder)


def _write(path: Path, write: Callable[[Path], object], make_folder: bool) -> None:
    from safetensors import SafetensorError

    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
            with temporary.open("r+b") as file:
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except (OSError, SafetensorError, ValueError) as failure:
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


def as_saved(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those values that JSON can hold, as they come back from it: a tuple is then a list."""
    saved = {}
    for name, value in values.items():
        with suppress(TypeError):
            saved[name] = json.loads(json.dumps(value))
    return saved


def package_folder(package: str, what: str) -> Path:
    """Return the folder of a package that `what` is read from; InvalidValueError without it."""
    # Found, not imported: such packages import libraries that are not needed for their files.
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise InvalidValueError(
            f"{what} is read from the package {package}, which is not installed: run `make models`"
        )
    return Path(spec.origin).parent


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files that writers of `path` left behind when they were killed."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        left.unlink(missing_ok=True)


def save_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    *,
    make_folder: bool = True,
) -> None:
    """Write tensors as safetensors with a checksum, whole or not at all.

    Tensors on the CPU are written from where they are: a state that just fits need not fit twice.
    """
    from safetensors.torch import save_file

    plain = _apart({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    about = dict(metadata or {})
    about[_CHECKSUM] = _checksum(plain, about)
    entry = {_OURS: json.dumps(about, sort_keys=True)}
    _write(path, lambda temporary: save_file(plain, temporary, entry), make_folder)


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, copied where two lie in one storage, which safetensors refuses."""
    often = Counter(t.untyped_storage().data_ptr() for t in tensors.values())
    return {
        name: t.clone() if often[t.untyped_storage().data_ptr()] > 1 else t
        for name, t in tensors.items()
    }


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return a safetensors file's tensors and its metadata; OutputError for any other file.

    Also for one whose content is not what its checksum says; files of others have none.
    """
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = _metadata(file)
    told = about.pop(_CHECKSUM, None)
    if told is not None and told != (found := _checksum(tensors, about)):
        raise OutputError(
            f"{str(path)!r} is damaged: the checksum of its content is {found[:12]}, "
            f"expected {told[:12]}: give a copy, or measure anew"
        )
    return tensors, about


def load_metadata(path: Path) -> dict[str, str]:
    """Return a safetensors file's metadata, without its tensors; OutputError for other files."""
    with _opened(path) as file:
        about = _metadata(file)
    about.pop(_CHECKSUM, None)
    return about


def _metadata(file: Any) -> dict[str, str]:
    """The entries that were saved with the tensors; those of files of others as they are."""
    about = dict(file.metadata() or {})
    return json.loads(about[_OURS]) if about.keys() == {_OURS} else about


def _checksum(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    """Return the SHA-256 of names, types, shapes, numbers and metadata, whatever their order."""
    digest = hashlib.sha256(json.dumps(sorted(about.items())).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError, ValueError) as failure:
        raise OutputError(f"cannot read {str(path)!r}: {failure}") from failure


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
