"""Amounts of memory: read from text, written for people, and how much a machine has left."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

from nodelens.errors import InvalidValueError

__all__ = ["as_bytes", "available", "shown_bytes"]

_UNITS = {
    "": 1, "b": 1, "k": 1000, "kb": 1000, "m": 1000**2, "mb": 1000**2, "g": 1000**3,
    "gb": 1000**3, "t": 1000**4, "tb": 1000**4, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30,
    "tib": 1 << 40,
}  # fmt: skip
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def as_bytes(amount: int | str) -> int:
    """Return a number of bytes, given as such or as text with a unit.

    >>> as_bytes("2 GiB"), as_bytes("1.5 MB"), as_bytes(4096)
    (2147483648, 1500000, 4096)
    """
    found = _AMOUNT.fullmatch(str(amount).strip())
    known = isinstance(amount, (int, str)) and not isinstance(amount, bool)
    if not known or found is None or found[2].lower() not in _UNITS:
        raise InvalidValueError(
            f"{amount!r} is no amount of memory, expected bytes or text such as '2 GiB' or '600 MB'"
        )
    size = int(float(found[1]) * _UNITS[found[2].lower()])
    if size < 1:
        raise InvalidValueError(f"a memory budget of {amount!r} leaves room for nothing")
    return size


def shown_bytes(size: int) -> str:
    """Return a number of bytes in the largest binary unit that leaves a number above 1.

    >>> shown_bytes(640), shown_bytes(3 << 19), shown_bytes(1644167168)
    ('640 B', '1.50 MiB', '1.53 GiB')
    """
    if size < 1024:
        return f"{size} B"
    value, units = float(size), iter(("KiB", "MiB", "GiB", "TiB"))
    unit = ""
    while value >= 1024 and unit != "TiB":
        value, unit = value / 1024, next(units)
    return f"{value:.3g} {unit}" if value >= 10 else f"{value:.2f} {unit}"


def available(device: torch.device) -> int | None:
    """Return the bytes that can still be had on a device, None where that cannot be told."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    known = [size for size in (_unused(), *map(_number, _LIMITS)) if size is not None]
    return min(known, default=None)


def _unused() -> int | None:
    """What the system can hand out; where it does not say, all it has."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        found = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text("ascii", "replace"))
        if found is not None:
            return int(found[1]) * 1024
    if not {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= set(getattr(os, "sysconf_names", ())):
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _number(path: str) -> int | None:
    """A container's limit, None without one."""
    file = Path(path)
    if not file.exists():
        return None
    text = file.read_text("ascii", "replace").strip()
    return int(text) if text.isdigit() else None
