"""The run directory: every path stays inside it, every file is whole or absent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from nodelens.errors import OutputError
from nodelens.files import load_tensors, save_tensors, write_bytes, write_text

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RunFolder"]

PROVENANCE = "provenance.json"
PARTS = ("logs", "results", "figures", "analysis")


class RunFolder:
    """A folder that an experiment writes into, by names relative to it.

    `written` collects the names of what was written since it was last emptied.
    """

    def __init__(self, root: str | Path) -> None:
        try:
            self.root = Path(root).expanduser()
        except RuntimeError as failure:
            raise OutputError(
                f"the output folder {str(root)!r} is nobody's: {failure}"
            ) from failure
        self.written: list[str] = []

    def prepare(self) -> None:
        """Make the folder and its parts, or raise OutputError before any work is done.

        A folder that holds other people's files is refused: a run would mix with them.
        """
        try:
            foreign = self.root.is_dir() and any(self.root.iterdir()) and not self.has(PROVENANCE)
            for part in PARTS if not foreign else ():
                (self.root / part).mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as failure:
            reason = getattr(failure, "strerror", None) or failure
            raise OutputError(
                f"the output folder {str(self.root)!r} cannot be made: {reason};"
                " expected a path that can be written"
            ) from failure
        if foreign:
            raise OutputError(
                f"the output folder {str(self.root)!r} has files in it and is not a run of"
                " nodelens; expected a new or empty folder, or an earlier run"
            )
        write_text(self.root / ".writable", "")
        (self.root / ".writable").unlink()

    def path(self, name: str) -> Path:
        """Return the path of `name`; OutputError when it would lie outside the folder."""
        try:
            root = self.root.resolve()
            path = (root / name).resolve()
        except (OSError, ValueError) as failure:
            raise OutputError(f"{name[:200]!r} is no name of a file: {failure}") from failure
        if path == root or not path.is_relative_to(root):
            raise OutputError(f"{name!r} is not inside the output folder {str(self.root)!r}")
        return path

    def _place(self, name: str) -> Path:
        """Return where to write `name`; a folder that went away is not made anew, half empty."""
        if not self.root.is_dir():
            raise OutputError(f"the output folder {str(self.root)!r} is gone")
        return self.path(name)

    def has(self, name: str) -> bool:
        """Return whether there is a file called `name`."""
        return self.path(name).is_file()

    def write_text(self, name: str, text: str) -> None:
        """Write a text file."""
        write_text(self._place(name), text)
        self.written.append(name)

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file of bytes."""
        write_bytes(self._place(name), data)
        self.written.append(name)

    def write_json(self, name: str, data: Any) -> None:
        """Write a JSON file; a number that is NaN or infinite becomes null."""
        self.write_text(name, _json(data))

    def write_provenance(self, data: Any) -> None:
        """Write `provenance.json`, which no stage counts among its files."""
        write_text(self._place(PROVENANCE), _json(data))

    def write_table(self, name: str, table: pd.DataFrame, *, index: bool = False) -> None:
        """Write a table as CSV; numbers keep every digit."""
        self.write_text(name, table.to_csv(index=index, lineterminator="\n"))

    def write_tensors(
        self, name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
    ) -> None:
        """Write a safetensors file."""
        save_tensors(self._place(name), tensors, metadata)
        self.written.append(name)

    def note(self, names: Iterable[str]) -> None:
        """Count files as written that something else wrote."""
        self.written.extend(names)

    def read_json(self, name: str) -> Any:
        """Return what a JSON file holds; OutputError when it is missing or broken."""
        try:
            return json.loads(self.path(name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as failure:
            raise OutputError(f"cannot read {name!r} of the run: {failure}") from failure

    def read_table(self, name: str, *, index: str | None = None) -> pd.DataFrame:
        """Return a CSV table; `index` names the column to index it by."""
        import pandas as pd

        # Exact from pandas 3 on, which warns when it is asked for.
        exact = {} if int(pd.__version__.split(".")[0]) >= 3 else {"float_precision": "round_trip"}
        options: dict[str, Any] = {
            **exact,
            # A layer may be called "0" or "NA": names stay text, only an empty cell is missing.
            "dtype": dict.fromkeys(("layer", "score", "strategy", "mode"), str),
            "keep_default_na": False,
            "na_values": [""],
        }
        try:
            table: pd.DataFrame = pd.read_csv(self.path(name), **options)
        except (OSError, ValueError) as failure:
            raise OutputError(f"cannot read {name!r} of the run: {failure}") from failure
        return table if index is None else table.set_index(index)

    def read_tensors(self, name: str) -> dict[str, Tensor]:
        """Return the tensors of a safetensors file."""
        return load_tensors(self.path(name))[0]

    def digest(self, name: str) -> str | None:
        """Return the SHA-256 of a file, None when there is none."""
        path = self.path(name)
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those already gone are no trouble."""
        for name in names:
            self.path(name).unlink(missing_ok=True)


def _json(data: Any) -> str:
    return json.dumps(_plain(data), indent=2, allow_nan=False) + "\n"


def _plain(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {str(key): _plain(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_plain(value) for value in data]
    if isinstance(data, float) and (data != data or data in (float("inf"), float("-inf"))):
        return None
    return data
