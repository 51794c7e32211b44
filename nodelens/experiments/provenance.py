"""Facts about where numbers come from: versions, source code, machine. No path, no user name."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Iterable
from importlib import metadata, util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["environment", "file_digest", "fingerprint", "git_state", "package_code", "source_code"]

_PACKAGES = (
    "nodelens",
    "torch",
    "nnsight",
    "transformers",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "matplotlib",
    "safetensors",
    "pydantic",
)
_ROOT = Path(__file__).parent.parent


def environment(device: torch.device) -> dict[str, Any]:
    """Return versions of Python and packages, and what the numbers were computed on."""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "device": str(device),
        "packages": {name: _version(name) for name in _PACKAGES},
        "git": git_state(),
    }


def git_state() -> dict[str, Any] | None:
    """Return the commit of nodelens's own sources and whether they were changed, if known."""
    if _git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no", ".")
    return {"commit": commit, "changed": bool(changes)} if commit else None


def fingerprint(tensors: Iterable[Tensor]) -> str:
    """Return a digest of the types, shapes and bytes of tensors, in order."""
    digest = hashlib.sha256()
    for tensor in tensors:
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{plain.dtype} {tuple(plain.shape)} ".encode())
        digest.update(plain.numpy().tobytes())
    return digest.hexdigest()[:16]


def file_digest(path: str | None) -> str | None:
    """Return a digest of a file that a configuration names, None when it names none."""
    if path is None:
        return None
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def source_code(*names: str) -> str:
    """Return a digest of nodelens's own source files under `names`, all of them by default."""
    chosen = [_ROOT / name for name in names] or [_ROOT]
    return _digest([file for path in chosen for file in _python_files(path)])


def package_code(classes: Iterable[type]) -> str:
    """Return a digest of the packages that `classes` were defined in."""
    packages = sorted({cls.__module__.partition(".")[0] for cls in classes})
    files: list[Path] = []
    for package in packages:
        spec = _spec(package)
        if spec is None:
            continue
        alone = [spec.origin] if spec.origin and Path(spec.origin).is_file() else []
        for place in spec.submodule_search_locations or alone:
            files += _python_files(Path(place))
    return _digest(files)


def _spec(package: str) -> Any:
    try:
        return util.find_spec(package) if package != "__main__" else None
    except ValueError:  # a module made by hand has none
        return None


def _python_files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for end in ("*.py", "*.j2", "*.css", "*.js") for file in path.rglob(end))
    return [path]


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """Return what git says about the folder of nodelens, None where git or a repository is not."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=_ROOT, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
