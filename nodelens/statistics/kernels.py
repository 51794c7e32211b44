"""The sums of kernels.c, compiled where there is a C compiler; without one torch does the same.

What is built is kept in the user's cache folder. `NODELENS_KERNELS=0` leaves torch to it.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Asked", "Survey", "add_products", "by_position", "count", "meet", "mirror", "survey"]

_FLAGS = ("-O3", "-march=native", "-ffp-contract=off", "-std=gnu11", "-Wno-psabi", "-fPIC")
_WAYS = (("-fopenmp",), ())
"""Ways to compile, the best first: what OpenMP needs is there where torch has loaded it."""
_WORTH_A_THREAD = 1 << 16
"""Elements below which a thread more takes longer than it saves."""
_SECONDS = 60

_WHERE, _COUNT, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_REST = {
    "survey": (ctypes.c_int, _FLOAT, _WHERE, _WHERE, _WHERE, _WHERE),
    "count_bins": (_WHERE, _COUNT, _WHERE),
    "count_values": (_WHERE, _COUNT, _WHERE),
    "add_products": (_WHERE, _WHERE, _WHERE),
    "mirror": (),
    "meet": (_WHERE, ctypes.c_int, _WHERE),
    "by_position": (_WHERE, _WHERE),
}
"""What every function over channels takes behind values, batch, channels, positions and threads."""

_BORN = os.getpid()
_log = logging.getLogger(__name__)


class Asked(NamedTuple):
    """What is asked of a survey beyond sums, means and extremes."""

    order: int = 0
    """2 or 4 for sums of powers of the deviation from the mean up to that one."""
    eps: float = -1.0
    """From 0: for the sum of absolute values, and how many are at most `eps`."""
    binned: bool = False
    """Whether the bin of every absolute value is asked for; of plain rows."""

    def joined(self, other: Asked) -> Asked:
        """Return what serves both; how many are small is counted for the larger `eps` alone."""
        order, eps = max(self.order, other.order), max(self.eps, other.eps)
        return Asked(order, eps, self.binned or other.binned)


class Survey(NamedTuple):
    """What one survey found of every channel, each `(channels,)`, sums in float64.

    `residual` is what the mean, rounded to the float `centre`, has lost. `m2`, `m3` and `m4` are
    sums of powers of the deviation from the mean itself. `top` is the bin of the largest absolute
    value, `small` how many are at most `eps`. What was not asked for is undefined.
    """

    asked: Asked
    low: Tensor
    high: Tensor
    centre: Tensor
    total: Tensor
    mean: Tensor
    residual: Tensor
    m2: Tensor
    m3: Tensor
    m4: Tensor
    size: Tensor
    top: Tensor
    small: Tensor
    bins: Tensor | None


def survey(values: Tensor, asked: Asked) -> Survey | None:
    """Return everything asked for from one visit of the values; None when torch has to do it."""
    if not _fits(values):
        return None
    channels = values.shape[1]
    # Whatever the defaults of the process: the library writes these types in this memory.
    sums = torch.empty(7, channels, dtype=torch.float64, device="cpu")
    numbers = torch.empty(2, channels, dtype=torch.int64, device="cpu")
    found = torch.empty(3, channels, dtype=torch.float32, device="cpu")
    plain = asked.binned and values.ndim == 2
    bins = torch.empty_like(values, dtype=torch.int16) if plain else None
    _over("survey", values, asked.order, asked.eps, sums, numbers, found, bins)
    low, high, centre = found.unbind()
    total, mean, residual, m2, m3, m4, size = sums.unbind()
    top, small = numbers.unbind()
    return Survey(
        asked, low, high, centre, total, mean, residual, m2, m3, m4, size, top, small, bins
    )


def count(values: Tensor, counts: Tensor, floor: Tensor) -> bool:
    """Count values, or bin numbers (int16), in `counts`; False when it was left to torch."""
    numbers = values.dtype == torch.int16
    if not _fits(values, torch.int16 if numbers else torch.float32):
        return False
    if counts.dtype != torch.int32 or not counts.is_contiguous():
        return False
    size = counts.shape[1]
    _over("count_bins" if numbers else "count_values", values, floor.contiguous(), size, counts)
    return True


def meet(values: Tensor, others: Tensor, *, whole: bool) -> Tensor | None:
    """Return sums of u g, abs(u g), (u g)^2, u^2 and g^2, `(5, channels)`; None if left to torch.

    With `whole`, u g is first summed over the positions of a sample.
    """
    others = others.contiguous()
    if values.shape != others.shape or not (_fits(values) and _fits(others)):
        return None
    sums = torch.empty(5, values.shape[1], dtype=torch.float64, device="cpu")
    _over("meet", values, others, int(whole and values.ndim == 3), sums)
    return sums


def by_position(values: Tensor, centre: Tensor) -> Tensor | None:
    """Return sums over the batch of x - centre and of its square, `(2, channels, positions)`.

    `values` are maps, `centre` is `(channels,)`. None if left to torch.
    """
    if values.ndim != 3 or not (_fits(values) and _fits(centre)):
        return None
    sums = torch.empty(2, *values.shape[1:], dtype=torch.float64, device="cpu")
    _over("by_position", values, centre, sums)
    return sums


def add_products(total: Tensor, products: Tensor, left: Tensor, right: Tensor) -> bool:
    """Add float32 products, and those of `left` and `right`, in place; False when left to torch."""
    wide = all(each.dtype == torch.float64 for each in (total, left, right))
    fitting = total.shape == products.shape == (len(left), len(right))
    if not (wide and fitting and total.is_contiguous() and _fits(products)):
        return False
    _over("add_products", products, left.contiguous(), right.contiguous(), total)
    return True


def mirror(matrix: Tensor) -> bool:
    """Copy what is above the diagonal to below it, in place; False when it was left to torch."""
    if not _fits(matrix):
        return False
    _over("mirror", matrix)
    return True


def _fits(values: Tensor, dtype: torch.dtype = torch.float32) -> bool:
    plain = values.device.type == "cpu" and values.dtype == dtype and values.is_contiguous()
    return plain and values.numel() > 0 and _library() is not None


def _over(function: str, values: Tensor, *rest: Any) -> None:
    """Call a function on all channels, in as many threads as torch uses."""
    batch, channels, *space = values.shape
    positions = prod(space)
    given = [each.data_ptr() if isinstance(each, Tensor) else each for each in rest]
    call = getattr(_library(), function)
    call(values.data_ptr(), batch, channels, positions, _threads(values.numel()), *given)


def _threads(work: int) -> int:
    # After a fork the parent's threads are gone, and OpenMP would wait for them.
    return min(torch.get_num_threads(), work // _WORTH_A_THREAD + 1) if os.getpid() == _BORN else 1


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    """The compiled functions; None where they are not wanted or cannot be built."""
    home = globals().get("__file__")
    source = Path(home).with_name("kernels.c") if home else None
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if os.environ.get("NODELENS_KERNELS") == "0" or not compiler:
        return None
    if source is None or not source.is_file():
        return None
    try:
        return _typed(_loaded(source, compiler))
    except (OSError, subprocess.SubprocessError) as error:
        _log.info("statistics are left to torch, kernels.c could not be built: %s", error)
        return None


def _loaded(source: Path, compiler: str) -> ctypes.CDLL:
    *better, last = _WAYS
    for way in better:
        with suppress(OSError, subprocess.SubprocessError):
            return ctypes.CDLL(str(_built(source, compiler, way)))
    return ctypes.CDLL(str(_built(source, compiler, last)))


def _typed(library: ctypes.CDLL) -> ctypes.CDLL:
    """Say what the functions take, so that plain numbers can be given."""
    for name, rest in _REST.items():
        function = getattr(library, name)
        function.argtypes = (_WHERE, _COUNT, _COUNT, _COUNT, ctypes.c_int, *rest)
        function.restype = None
    return library


def _built(source: Path, compiler: str, way: Sequence[str]) -> Path:
    """The shared library of this source, compiler and processor, built once."""
    about = "\n".join([source.read_text("utf-8"), compiler, *_FLAGS, *way, *_processor()])
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nodelens"
    target = folder / f"kernels-{hashlib.sha256(about.encode()).hexdigest()[:16]}.so"
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=folder) as room:
            made, parts = Path(room) / target.name, Path(room) / "kernels.o"
            # Linked apart, without a way: another OpenMP than torch's would come along.
            for command in (
                [*_FLAGS, *way, "-c", str(source), "-o", str(parts)],
                ["-shared", str(parts), "-o", str(made)],
            ):
                subprocess.run(
                    [compiler, *command], check=True, capture_output=True, timeout=_SECONDS
                )
            made.replace(target)
    if hasattr(os, "getuid") and target.stat().st_uid != os.getuid():
        raise OSError(f"{target} belongs to someone else")
    return target


def _processor() -> list[str]:
    """What tells processors apart that share a home folder."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return [platform.machine(), platform.processor(), flags]
