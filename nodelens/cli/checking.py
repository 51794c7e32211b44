"""The command `check`: the promises of a lens, kept or not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nodelens.cli.console import clean_errors, console

if TYPE_CHECKING:
    from nodelens.testing import Check

__all__ = ["check"]


def check(
    name: Annotated[
        str | None, typer.Argument(help="A lens; all of them by default.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Put lenses through the checks every lens must pass.

    The exit code is 1 when one fails.
    """
    with clean_errors():
        from nodelens.lens import Lens
        from nodelens.testing import checks

        names = Lens.names() if name is None else [Lens.named(name).name]
        found = []
        for lens in names:
            found.append(_checked(lens, list(checks(lens))))
            if not as_json:
                _print(**found[-1])
        if as_json:
            typer.echo(json.dumps(found, indent=2))
        if any(entry["failed"] for entry in found):
            raise typer.Exit(1)


def _checked(lens: str, checks: Sequence[Check]) -> dict[str, Any]:
    """Return how the checks of a lens went: how many passed, which failed or were left out, why."""
    failed: dict[str, str] = {}
    for check in checks:
        try:
            check()
        except Exception as failure:  # noqa: BLE001 - a stranger's lens may fail in any way
            failed[check.name] = f"{type(failure).__name__}: {failure}"
    skipped = {check.name: check.skipped for check in checks if check.skipped is not None}
    passed = len(checks) - len(failed) - len(skipped)
    return {"lens": lens, "passed": passed, "failed": failed, "skipped": skipped}


def _print(lens: str, passed: int, failed: dict[str, str], skipped: dict[str, str]) -> None:
    counts = {"passed": passed, "failed": len(failed), "skipped": len(skipped)}
    out = console()
    summary = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    out.print(f"{lens:<32} {summary}", markup=False, style="red" if failed else None)
    for sentence, problem in failed.items():
        out.print(f"  failed: {sentence}\n          {problem}", markup=False)
    for sentence, reason in skipped.items():
        out.print(f"  skipped: {sentence} ({reason})", markup=False, style="dim")
