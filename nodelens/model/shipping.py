"""Code and data that go along with a hosted trace, to a server that does not know nodelens."""

from __future__ import annotations

import json
import pickle
import sys
import zlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from nodelens.errors import InvalidValueError

__all__ = ["packages_of", "run_shipped", "sources", "writable"]

_NOT_OF_LENSES = {"cli", "configs", "experiments", "figures", "report", "testing", "tracking"}
"""Parts of nodelens that come after lenses, so that none needs them in its pass."""
_EVERYWHERE = {"builtins", "torch", "numpy", "transformers", *sys.stdlib_module_names}


def run_shipped(model: Any, tracer: Any, code: bytes, payload: bytes) -> Any:
    """Return what the function in `payload` brings, run with the packages in `code`; on the server.

    nnsight sends this one function as its own source, so all it uses is imported inside. The
    packages are imported from their text for the time of the pass, then what was there before,
    another version perhaps, is put back. nnsight could send classes by value too, but rebuilds
    their methods one by one, without the cell that `super()` needs.
    """
    import importlib.abc
    import importlib.util
    import json
    import pickle
    import sys
    import zlib

    texts = json.loads(zlib.decompress(code))

    class Shipped(importlib.abc.MetaPathFinder, importlib.abc.Loader):
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
            if name not in texts:
                return None
            package = texts[name][0]
            return importlib.util.spec_from_loader(name, self, is_package=package)

        def exec_module(self, module: Any) -> None:
            text = texts[module.__name__][1]
            exec(compile(text, f"<shipped {module.__name__}>", "exec"), vars(module))

    roots = {name.partition(".")[0] for name in texts}
    mine = [name for name in sys.modules if name.partition(".")[0] in roots]
    before = {name: sys.modules.pop(name) for name in mine}
    finder = Shipped()
    sys.meta_path.insert(0, finder)
    try:
        function, arguments = pickle.loads(payload)
        return function(model, tracer, *arguments)
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.partition(".")[0] in roots]:
            del sys.modules[name]
        sys.modules.update(before)


def packages_of(classes: Iterable[type]) -> frozenset[str]:
    """Return the top-level packages a server needs the code of to know these classes."""
    modules = {base.__module__ for made in classes for base in made.__mro__}
    return frozenset(name.partition(".")[0] for name in modules) - _EVERYWHERE


@lru_cache(maxsize=8)
def sources(packages: frozenset[str]) -> bytes:
    """Return the text of every module of some packages, of nodelens's what a pass may need.

    Compressed. Raises InvalidValueError for a package that has no files, such as a notebook.
    """
    texts: dict[str, tuple[bool, str]] = {}
    for package in sorted(packages):
        file = getattr(sys.modules.get(package), "__file__", None)
        if package == "__main__" or file is None:
            raise InvalidValueError(
                f"what is defined in {package!r} cannot be sent to a hosted model: "
                "put it into a module of its own and import that"
            )
        texts.update(_texts(package, Path(file)))
    return zlib.compress(json.dumps(texts).encode())


def _texts(package: str, file: Path) -> dict[str, tuple[bool, str]]:
    if file.name != "__init__.py":
        return {package: (False, file.read_text("utf-8"))}
    found = {}
    for path in sorted(file.parent.rglob("*.py")):
        *parents, last = path.relative_to(file.parent).with_suffix("").parts
        if package == "nodelens" and not _NOT_OF_LENSES.isdisjoint(parents):
            continue
        is_package = last == "__init__"
        name = ".".join([package, *parents, *([] if is_package else [last])])
        found[name] = (is_package, path.read_text("utf-8"))
    return found


def writable(function: Any, arguments: tuple[Any, ...]) -> bytes:
    """Return a call as bytes; InvalidValueError for an argument that cannot be sent."""
    try:
        return pickle.dumps((function, arguments))
    except (pickle.PicklingError, TypeError, AttributeError) as failure:
        raise InvalidValueError(
            f"this run cannot be sent to a hosted model: {failure}; expected options that can be "
            "pickled, and no function made on the spot"
        ) from failure
