"""The commands that tell of lenses without running them: `lenses` and `describe`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nodelens.cli.console import clean_errors, console
from nodelens.cli.tables import print_prose

if TYPE_CHECKING:
    from rich.padding import Padding
    from rich.table import Table

    from nodelens.metrics.facts import LensFacts

__all__ = ["describe", "lenses"]

BUILT_IN = "nodelens_lenses"
WIDE = 120
"""Columns from which on there is room for what a lens gives."""
NEEDS = ("targets", "loss", "weights", "nothing")


def lenses(
    family: Annotated[str | None, typer.Option(help="Only lenses of a family.")] = None,
    needs: Annotated[
        str | None, typer.Option(help="What a run needs besides inputs: " + ", ".join(NEEDS) + ".")
    ] = None,
    state: Annotated[
        str | None, typer.Option(help="State that grows no faster than C, K C, C^2, ...")
    ] = None,
    cost: Annotated[
        str | None, typer.Option(help="Multiplications a row that grow no faster than C, C D, ...")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the lenses that are installed. Those of other packages too."""
    with clean_errors():
        from nodelens.lens import Lens
        from nodelens.metrics.facts import LensFacts

        found = [LensFacts.of(name) for name in Lens.names()]
        kept = list(_chosen(found, family, needs, state, cost))
        if as_json:
            typer.echo(json.dumps([facts.to_json() for facts in kept], indent=2))
        else:
            _print_lenses(kept)


def describe(
    name: Annotated[str, typer.Argument(help="A lens, or one of its other names.")],
    layer: Annotated[
        str | None,
        typer.Option(help="Weight shape, such as 512x784, to tell the bytes of state for."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="A transformers model, by name or folder, to tell the layers scored of."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a lens measures, needs and keeps. Its options too."""
    with clean_errors():
        from nodelens.metrics.facts import LensFacts, layer_of_shape

        facts = LensFacts.of(name)
        size = None if layer is None else facts.state_of(layer_of_shape(layer))
        scored = None if model is None else _layers(facts, model)
        if as_json:
            told = {} if size is None else {"state_bytes": size.bytes, "for_one_of": size.unknown}
            told |= {} if scored is None else {"layers": scored[0], "refused": scored[1]}
            typer.echo(json.dumps({**facts.to_json(), **told}, indent=2))
            return
        _print_lens(facts, "" if size is None else f"{size} for a layer of {layer}")
        if scored is not None:
            names, refusal = scored
            said = f"cannot score it: {refusal}" if refusal else "\n".join(names)
            console().print(f"\n{model}\n{said}", markup=False)


def _layers(facts: LensFacts, model: str) -> tuple[list[str], str | None]:
    """The layers of a model that a lens scores, as far as no pass is needed; why none."""
    from nodelens.model import load_model

    return facts.layers_of(load_model(model))


def _chosen(
    found: Sequence[LensFacts],
    family: str | None,
    needs: str | None,
    state: str | None,
    cost: str | None,
) -> Iterator[LensFacts]:
    """The lenses that pass every filter; a filter that nothing can pass is an error."""
    from nodelens.metrics.growth import growth

    asked = {need for facts in found for need in facts.needs}
    _check("family", family, sorted({facts.kind.family for facts in found} - {""}))
    _check("needs", needs, [*NEEDS, *sorted(asked - set(NEEDS))])
    for bound in (state, cost):
        growth(bound or "")
    for facts in found:
        kind = facts.kind
        if family in (None, kind.family) and (
            (needs is None or needs in (facts.needs or ("nothing",)))
            and (state is None or _within(kind.state, state))
            and (cost is None or _within(kind.cost, cost))
        ):
            yield facts


def _within(text: str, bound: str) -> bool:
    from nodelens.errors import InvalidValueError
    from nodelens.metrics.growth import no_more_than

    try:
        return no_more_than(text, bound)
    except InvalidValueError:
        # A stranger's lens may say what no table reads; it is left out, the others are listed.
        return False


def _check(option: str, value: str | None, valid: Sequence[str]) -> None:
    from nodelens.errors import InvalidValueError, nearest

    if value is not None and value not in valid:
        raise InvalidValueError(
            f"{option} is {value!r}{nearest(value, valid)}, expected one of {', '.join(valid)}"
        )


def _print_lenses(found: Sequence[LensFacts]) -> None:
    out = console()
    wide = out.width >= WIDE
    strangers = wide and any(facts.package != BUILT_IN for facts in found)
    # On a narrow screen unit and package are left to `describe`: broken words help nobody.
    unit = ["unit"] if wide else []
    table = _table("lens", *unit, "keep", "needs", "state", "cost")
    if strangers:
        table.add_column("package")
    if wide:
        table.add_column("what it gives", overflow="fold")
    for family in sorted({facts.kind.family for facts in found}):
        table.add_row(f"[dim]{family or 'other'}[/dim]")
        for facts in (facts for facts in found if facts.kind.family == family):
            table.add_row(f"  {facts.name}", *_cells(facts, strangers, wide))
    out.print(table)
    keys = (
        f"{len(found)} of them; `nodelens describe NAME` says more",
        "keep: the channels that a score argues for keeping",
        "needs: besides inputs; weights: nothing but those",
        "state: numbers kept a layer, cost: multiplications a row beside the passes",
        "C channels, D inputs, T targets, K classes",
    )
    out.print("\n" + "\n".join(keys), style="dim", markup=False)


def _cells(facts: LensFacts, package: bool, wide: bool) -> Iterator[str]:
    from rich.markup import escape

    from nodelens.figures.style import shown_unit
    from nodelens.metrics.growth import bare

    kind = facts.kind
    keep = {1: "high", -1: "low"}.get(kind.importance, "")
    growths = (bare(text) for text in (kind.state, kind.cost))
    if wide:
        yield shown_unit(kind.unit)
    yield from (keep, ", ".join(facts.needs), *growths)
    if package:
        yield facts.package
    if wide:
        yield escape(facts.summary)


def _print_lens(facts: LensFacts, size: str) -> None:
    from nodelens.cli.mathtext import plain_formula, plain_prose

    out, kind = console(), facts.kind
    out.print(facts.name, style="bold", markup=False)
    out.print(f"{facts.summary}.", markup=False)
    if kind.formula:
        out.print(f"\n    {plain_formula(kind.formula)}\n", markup=False)
        meanings = [(plain_formula(symbol), meaning) for symbol, meaning in facts.symbols()]
        out.print(_indented(_pairs([*meanings, ("where", plain_prose(kind.where))])))
        out.print()
    out.print(_pairs(_rows(facts, size)))
    for paragraph in facts.paragraphs[1:]:
        print_prose(out, f"\n{paragraph}")
    out.print("\nOptions", style="bold")
    out.print(_options(facts))


def _rows(facts: LensFacts, size: str) -> Iterator[tuple[str, str]]:
    """What is told of a lens, by key; values may be empty."""
    from nodelens.cli.mathtext import plain_prose
    from nodelens.figures.style import shown_unit

    told, kind = facts.to_json(), facts.kind
    yield "aliases", ", ".join(told["aliases"])
    yield "family", kind.family
    yield "package", facts.package
    yield "unit", shown_unit(kind.unit) or ("none" if kind.unit else "")
    yield "keep", f"channels with {told['keep']} scores" if told["keep"] else ""
    yield "reads", ", ".join(_read(read) for read in told["reads"])
    yield "needs", ", ".join(facts.needs) or "nothing but inputs"
    yield "rows", f"at least {told['minimum_rows']}" if told["reads"] else ""
    yield "state", facts.growth
    yield "", size
    yield "cost", facts.work if told["reads"] else ""
    yield "cases", plain_prose(kind.degenerate)
    yield "paper", kind.paper


def _read(read: dict[str, Any]) -> str:
    options = "".join(f", {key}={value!r}" for key, value in read["options"].items())
    view = "" if read["view"] == "rows" else f", view {read['view']}"
    return f"{read['site']} ({read['statistic'].rpartition('.')[2]}{options}{view})"


def _options(facts: LensFacts) -> Table:
    table = _table("option", "default", "")
    for option in facts.options:
        table.add_row(option.name, option.default or "required", option.meaning)
    return table


def _indented(table: Table) -> Padding:
    from rich.padding import Padding

    return Padding(table, (0, 0, 0, 4))


def _pairs(rows: Iterable[tuple[str, str]]) -> Table:
    table = _table("", "")
    table.show_header = False
    for key, value in rows:
        if value:
            table.add_row(key, value)
    return table


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number == 0, overflow="fold")
    return table
