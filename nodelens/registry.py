"""Lenses by name: those of this process, and those that installed packages announce."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Generic, TypeVar

from nodelens.errors import InvalidValueError, UnknownNameError, nearest

if TYPE_CHECKING:
    from nodelens.lens import Lens

__all__ = ["LENSES", "Registry"]

T = TypeVar("T")


class Registry(Generic[T]):
    """Classes by name and alias; packages of an entry point group are imported when asked for.

    `listed_by` is a command that lists all names, where they are too many for a message.
    """

    def __init__(self, kind: str, group: str | None = None, listed_by: str | None = None) -> None:
        self.kind = kind
        self.listed_by = listed_by
        self.group = group
        self.failures: dict[str, str] = {}
        self._classes: dict[str, type[T]] = {}
        self._aliases: dict[str, str] = {}
        self._unlisted: set[str] = set()
        self._families: dict[str, Callable[[str], type[T]]] = {}
        self._discovered = group is None

    def check(self, name: object, aliases: object = ()) -> None:
        """Raise InvalidValueError for what cannot be a name, or is no collection of aliases."""
        if not isinstance(name, str) or not name:
            raise InvalidValueError(
                f'a {self.kind} is registered as {name!r}, expected a name: @...register("name")'
            )
        if isinstance(aliases, str):
            raise InvalidValueError(f"aliases is {aliases!r}, expected several: ({aliases!r},)")

    def add(
        self, name: str, cls: type[T], aliases: tuple[str, ...] = (), *, listed: bool = True
    ) -> None:
        """Register `cls`; a name taken by another class is InvalidValueError.

        The same class defined again, as when a notebook cell is run twice, takes its place.
        """
        if listed and not self._announced(cls):
            # A name that a plugin not yet imported holds is taken too.
            self.discover()
        for taken in (name, *aliases):
            holder = self._classes.get(self._aliases.get(taken, taken))
            if holder is not None and not _same(holder, cls):
                raise InvalidValueError(
                    f"the {self.kind} name {taken!r} is taken by "
                    f"{holder.__module__}.{holder.__qualname__}; "
                    f"expected another name for {cls.__module__}.{cls.__qualname__}"
                )
        self._aliases.pop(name, None)
        for alias in aliases:
            self._classes.pop(alias, None)
        self._classes[name] = cls
        self._aliases.update(dict.fromkeys(aliases, name))
        if not listed:
            self._unlisted.add(name)

    def add_family(self, prefix: str, make: Callable[[str], type[T]]) -> None:
        """Register all names that begin with `prefix`: `make(rest)` is the class of one.

        Each is made and registered when it is asked for, so none is in `names()`. `make` raises
        UnknownNameError for a rest that it does not know.
        """
        self._families[prefix] = make

    def families(self) -> list[str]:
        """Return the prefixes of the names that are made when they are asked for, sorted."""
        self.discover()
        return sorted(self._families)

    def get(self, name: str) -> type[T]:
        """Return the class registered as `name`.

        Raises UnknownNameError with the nearest names and every plugin that failed to import.
        """
        if not isinstance(name, str):
            raise UnknownNameError(f"a {self.kind} is asked for by name, a string, not {name!r}")
        if self._find(name) is None:
            self.discover()
        found = self._find(name) or self._of_family(name)
        if found is None:
            raise UnknownNameError(self._unknown(name))
        return found

    def names(self) -> list[str]:
        """Return every name, sorted, without aliases."""
        self.discover()
        return sorted(self._classes.keys() - self._unlisted)

    def aliases(self, name: str) -> list[str]:
        """Return the other names of `name`."""
        return sorted(alias for alias, known in self._aliases.items() if known == name)

    def discover(self) -> None:
        """Import the packages that announce classes, once; one that fails is noted, not raised."""
        if self._discovered or self.group is None:
            return
        self._discovered = True
        for point in sorted(entry_points(group=self.group), key=lambda p: (p.name, p.value)):
            self._load(point)

    def _announced(self, cls: type[T]) -> bool:
        """Whether the class is of a package that announces its classes by entry point."""
        if self._discovered or self.group is None:
            return True
        home = cls.__module__.partition(".")[0]
        return any(p.module.partition(".")[0] == home for p in entry_points(group=self.group))

    def _load(self, point: EntryPoint) -> None:
        try:
            point.load()
        # A stranger's package may fail in any way, and must not take the others with it.
        except (Exception, SystemExit) as failure:  # noqa: BLE001
            self.failures[point.name] = f"{type(failure).__name__}: {failure}"

    def _find(self, name: str) -> type[T] | None:
        return self._classes.get(self._aliases.get(name, name))

    def _of_family(self, name: str) -> type[T] | None:
        for prefix, make in self._families.items():
            if name.startswith(prefix):
                self.add(name, make(name[len(prefix) :]), listed=False)
                return self._find(name)
        return None

    def _unknown(self, name: str) -> str:
        known = [*self.names(), *self._aliases]
        message = f"unknown {self.kind} {name!r}{nearest(name, known)}; "
        if self.listed_by is None:
            message += f"there are {', '.join(self.names()) or 'none'}"
        else:
            message += f"{self.listed_by} lists all {len(self.names())}"
        if self.failures:
            failed = "; ".join(f"{plugin} ({why})" for plugin, why in self.failures.items())
            message += f". Plugins that failed to import: {failed}"
        return message


def _same(one: type[object], other: type[object]) -> bool:
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


LENSES: Registry[Lens] = Registry("lens", "nodelens.lenses", "`nodelens lenses`")
"""Every lens there is: the built-in ones are found as a stranger's are."""
