"""The command `nodelens`. Our own errors are one message and exit code 2.

An interrupt is exit code 130, SIGTERM 143.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from nodelens.experiments import RunResults
    from nodelens.lens import Lens
    from nodelens.testing import Check

__all__ = ["app", "main"]

app = typer.Typer(
    name="nodelens",
    help="Which channels of a network matter, which are copies of others, what happens without.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
INTERRUPTED = 130
TERMINATED = 143


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with `arguments`, those of the process by default, and exit."""
    app(args=None if arguments is None else list(arguments))


@app.command()
def run(
    config: Annotated[str, typer.Argument(help="A YAML file.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY.SUB=VALUE]...", help="Values that win over the file.", show_default=False
        ),
    ] = None,
    output_dir: Annotated[
        str | None, typer.Option(help="Run directory; wins over output.directory.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Wins over experiment.seed.")] = None,
    device: Annotated[str | None, typer.Option(help="Wins over experiment.device.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep what finished unchanged, and go on from there.")
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(help="Measure one share of the data, such as 1/3, for `nodelens merge`."),
    ] = None,
) -> None:
    """Run an experiment and write its report; under torchrun, with all its processes."""
    given = {"output.directory": output_dir, "experiment.seed": seed, "experiment.device": device}
    named = [(key, value) for key, value in given.items() if value is not None]
    with _clean_errors():
        from nodelens.configs.config_loader import load_config
        from nodelens.experiments import experiment_for

        loaded = load_config(config, [*(overrides or []), *named])
        experiment = experiment_for(loaded)
        options = {"--output-dir": output_dir, "--seed": seed, "--device": device, "--shard": shard}
        with _going_on(["run", config, *(overrides or [])], options, loaded.output.directory):
            results = experiment.run(resume=resume, shard=shard, progress=_is_first())
        if shard is not None:
            _console().print(f"\nShard {shard}: {results.directory}", markup=False)
        elif _is_first():
            _print_findings(results)


@app.command()
def merge(
    directories: Annotated[
        list[str], typer.Argument(metavar="DIR...", help="Run directories of all shards.")
    ],
    output_dir: Annotated[
        str | None, typer.Option(help="Run directory; by default that of the configuration.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep stages that finished unchanged.")
    ] = False,
) -> None:
    """Put the shards of a run together and write its report."""
    with _clean_errors():
        from nodelens.configs.config_loader import load_config
        from nodelens.experiments import experiment_for, read_shards

        first = read_shards(directories)[0]
        named = [] if output_dir is None else [("output.directory", output_dir)]
        loaded = load_config(first.config, named)
        options = {"--output-dir": output_dir}
        with _going_on(["merge", *directories], options, loaded.output.directory):
            results = experiment_for(loaded).merge(directories, resume=resume)
        _print_findings(results)


@app.command()
def plan(
    config: Annotated[str, typer.Argument(help="A YAML file.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY.SUB=VALUE]...", help="Values that win over the file.", show_default=False
        ),
    ] = None,
    memory_budget: Annotated[
        str | None,
        typer.Option(help="Such as '2 GiB'; wins over calibration.memory_budget."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what measuring will take: passes, reads, memory and work. Nothing is trained or read."""
    named = [] if memory_budget is None else [("calibration.memory_budget", memory_budget)]
    with _clean_errors():
        from nodelens.configs.config_loader import load_config
        from nodelens.experiments.planning import plan_of

        found = plan_of(load_config(config, [*(overrides or []), *named]))
        typer.echo(json.dumps(found.to_json(), indent=2) if as_json else str(found))


@app.command()
def lenses(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the lenses that are installed."""
    with _clean_errors():
        from nodelens.lens import Lens

        found = [_facts(Lens.named(name), name) for name in Lens.names()]
        if as_json:
            typer.echo(json.dumps(found, indent=2))
            return
        _print_lenses(found)


@app.command()
def describe(
    name: Annotated[str, typer.Argument(help="A lens, or one of its other names.")],
) -> None:
    """Say what a lens measures and what options it has."""
    with _clean_errors():
        from nodelens.lens import Lens

        _print_lens(Lens.named(name))


@app.command()
def check(
    name: Annotated[
        str | None, typer.Argument(help="A lens; all of them by default.", show_default=False)
    ] = None,
) -> None:
    """Put lenses through the checks every lens must pass.

    The exit code is 1 when one fails.
    """
    with _clean_errors():
        from nodelens.lens import Lens
        from nodelens.testing import checks

        names = Lens.names() if name is None else [Lens.named(name).name]
        if [lens for lens in names if not _passes(lens, list(checks(lens)))]:
            raise typer.Exit(1)


@contextmanager
def _clean_errors() -> Iterator[None]:
    """Turn our errors into a message and exit code 2, and an interrupt into exit code 130."""
    from nodelens.errors import NodeLensError

    try:
        yield
    except NodeLensError as error:
        from rich.markup import escape

        _console(stderr=True).print(f"[bold red]error:[/bold red] {escape(str(error))}")
        raise typer.Exit(2) from error
    except KeyboardInterrupt as interrupt:
        terminated = type(interrupt) is not KeyboardInterrupt
        raise typer.Exit(TERMINATED if terminated else INTERRUPTED) from interrupt


@contextmanager
def _going_on(words: list[str], options: dict[str, Any], directory: str) -> Iterator[None]:
    """Upon Ctrl-C or SIGTERM, say with which command the work within goes on."""
    from nodelens.experiments import terminable

    try:
        with terminable():
            yield
    except KeyboardInterrupt:
        if not _is_first():
            raise
        given = [part for name, v in options.items() if v is not None for part in (name, str(v))]
        command = shlex.join([*_front(), *words, *given, "--resume"])
        console = _console(stderr=True)
        console.print(f"Interrupted. What was finished is whole, in {directory}", markup=False)
        console.print(f"Go on with: {command}", markup=False)
        raise


def _front() -> list[str]:
    """Return the words this command was started with, before its own."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ["nodelens"]
    here = os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"])
    return ["torchrun", "--nproc-per-node", here, "-m", "nodelens"]


def _is_first() -> bool:
    """Return whether this process speaks for the run: rank 0 of torchrun's, or the only one."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def _print_findings(results: RunResults) -> None:
    console = _console()
    findings = results.findings
    console.print()
    console.print(f"{findings['headline'].replace('`', '')}.", style="bold", markup=False)
    for sentence in findings["sentences"]:
        console.print(f"- {sentence.replace('`', '')}", markup=False)
    console.print(f"\nReport: {results.report}", markup=False)


def _print_lenses(found: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from nodelens.figures.style import shown_unit

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("lens", no_wrap=True)
    for column in ("what it gives", "unit", "keep"):
        table.add_column(column)
    for family in sorted({lens["family"] for lens in found}):
        table.add_row(f"[dim]{family or 'other'}[/dim]")
        for lens in (lens for lens in found if lens["family"] == family):
            summary = re.sub(r",? `\(channels,\)`.*", "", lens["summary"]).rstrip(".")
            table.add_row(f"  {lens['name']}", summary, shown_unit(lens["unit"]), lens["keep"])
    console = _console()
    console.print(table)
    console.print("\nkeep: the channels that a score argues for keeping", style="dim")


def _print_lens(lens: type[Lens]) -> None:
    import inspect

    facts = _facts(lens, lens.name)
    console = _console()
    console.print(lens.name, style="bold", markup=False)
    for key in ("aliases", "family", "unit", "keep"):
        value = ", ".join(facts[key]) if isinstance(facts[key], list) else facts[key]
        if value:
            console.print(f"  {key:<8} {value}", markup=False)
    console.print("\n" + (inspect.getdoc(lens) or "").strip(), markup=False)
    console.print("\nOptions", style="bold")
    for option, text in facts["options"].items():
        console.print(f"  {option:<16} {text}", markup=False)


def _passes(lens: str, checks: Sequence[Check]) -> bool:
    """Run the checks of a lens, print how they went, and return whether all passed."""
    failed: dict[str, str] = {}
    for check in checks:
        try:
            check()
        except Exception as failure:  # noqa: BLE001 - a stranger's lens may fail in any way
            failed[check.name] = f"{type(failure).__name__}: {failure}"
    skipped = {check.name: check.skipped for check in checks if check.skipped is not None}
    passed = len(checks) - len(failed) - len(skipped)
    counts = {"passed": passed, "failed": len(failed), "skipped": len(skipped)}
    console = _console()
    summary = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    console.print(f"{lens:<32} {summary}", markup=False, style="red" if failed else None)
    for sentence, problem in failed.items():
        console.print(f"  failed: {sentence}\n          {problem}", markup=False)
    for sentence, reason in skipped.items():
        console.print(f"  skipped: {sentence} ({reason})", markup=False, style="dim")
    return not failed


def _facts(lens: type[Lens], name: str) -> dict[str, Any]:
    """Return what a lens says of itself, as plain data."""
    import inspect

    words = {1: "high", -1: "low"}
    return {
        "name": name,
        "aliases": lens.aliases(name),
        "family": getattr(lens, "family", ""),
        "unit": getattr(lens, "unit", ""),
        "keep": words.get(getattr(lens, "importance", 0), ""),
        "summary": (inspect.getdoc(lens) or "").partition("\n\n")[0].replace("\n", " "),
        "options": {
            option: _option(parameter)
            for option, parameter in inspect.signature(lens).parameters.items()
        },
    }


def _option(parameter: Any) -> str:
    """Return an option's default, or that it has to be given."""
    return "required" if parameter.default is parameter.empty else f"default {parameter.default!r}"


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True)
