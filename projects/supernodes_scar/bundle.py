"""A bundle of a run's results to pass on: no weights, no private paths, every file by checksum."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

from nodelens.errors import InvalidValueError, OutputError

__all__ = ["FILES", "prepare", "verify"]

MANIFEST = "manifest.json"
FILES = (
    "about.json",
    "settings.json",
    "losses.jsonl",
    "channels.csv",
    "claims.csv",
    "concentration.csv",
    "kinds.csv",
    "overlap.csv",
    "perplexity.csv",
)
_NOTES = Path(__file__).parent / "README.md"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".ckpt", ".npz", ".npy", ".h5", ".onnx")
_PRIVATE = re.compile(rb"(?<![\w.:/*~)-])((?:file://)?/[\w.-]+/|~/|[A-Za-z]:\\)")
"""An absolute path, of any system; what stands in an address or a relative path is none."""


def prepare(folder: Path, bundle: Path) -> Path:
    """Copy the results of a finished run into a new folder with its manifest, and return it.

    Raises OutputError for a run that is not finished, InvalidValueError for a bundle that exists or
    a file with a path of this machine in it.
    """
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise OutputError(f"{str(folder)!r} has no {missing[0]!r}, expected a finished run")
    if bundle.exists() and any(bundle.iterdir()):
        raise InvalidValueError(f"{str(bundle)!r} has files in it, expected a new folder")
    bundle.mkdir(parents=True, exist_ok=True)
    for source in (*(folder / name for name in FILES), _NOTES):
        shutil.copyfile(source, bundle / source.name)
    digests = {path.name: _digest(path) for path in sorted(bundle.iterdir())}
    (bundle / MANIFEST).write_text(json.dumps({"sha256": digests}, indent=1) + "\n")
    if problems := verify(bundle):
        raise InvalidValueError(f"{str(bundle)!r}: {problems[0]}")
    return bundle


def verify(bundle: Path) -> list[str]:
    """Return what is wrong with a bundle, in words; nothing for one that is as it was prepared.

    Raises OutputError where there is no manifest to go by.
    """
    try:
        told: dict[str, str] = json.loads((bundle / MANIFEST).read_text())["sha256"]
        names = {*told.keys()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as failure:
        raise OutputError(f"{str(bundle)!r} has no manifest that can be read: {failure}") from None
    here = {p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file()}
    problems = [f"{name!r} is missing" for name in (names | {*FILES}) - here]
    problems += [f"{name!r} is not in the manifest" for name in here - names - {MANIFEST}]
    for name in sorted(here & names):
        problems += _wrong(bundle / name, told[name])
    return sorted(problems)


def _wrong(path: Path, digest: str) -> list[str]:
    found = []
    if _digest(path) != digest:
        found.append(f"{path.name!r} has another checksum")
    if path.suffix.lower() in _WEIGHTS:
        found.append(f"{path.name!r} is of a kind that holds weights")
    elif private := _PRIVATE.search(path.read_bytes()):
        found.append(f"{path.name!r} holds a path of a machine: {private[1].decode()}...")
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
