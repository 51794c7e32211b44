"""The commands that measure: `run`, `merge`, `plan`."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from nodelens.cli.console import clean_errors, console, going_on, is_first
from nodelens.cli.tables import print_prose

if TYPE_CHECKING:
    from nodelens.experiments import RunResults

__all__ = ["AsJson", "Settings", "merge", "plan", "print_findings", "run"]

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY.SUB=VALUE",
        help="A value that wins over the file; as often as needed.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")]


ConfigFile = Annotated[str, typer.Argument(help="A YAML file.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY.SUB=VALUE", help="Values that win over the file.", show_default=False
    ),
]


def run(
    config: ConfigFile,
    overrides: Overrides = None,
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
    only: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Do this stage alone again.")
    ] = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Run an experiment and write its report. Under torchrun, with all its processes."""
    given = {"output.directory": output_dir, "experiment.seed": seed, "experiment.device": device}
    named = [(key, value) for key, value in given.items() if value is not None]
    overrides = [*(overrides or []), *(settings or [])]
    with clean_errors():
        from nodelens.configs.config_loader import load_config
        from nodelens.experiments import begun_by, started_by

        loaded = load_config(config, [*overrides, *named])
        experiment = started_by(begun_by(loaded, shard) if resume or only else None, loaded)
        options = {"--output-dir": output_dir, "--seed": seed, "--device": device, "--shard": shard}
        with going_on(["run", config, *overrides], options, loaded.output.directory):
            shown = is_first() and not as_json
            results = experiment.run(resume=resume, shard=shard, progress=shown, only=only)
        if only is not None:
            _print_part("stage", only, str(results.directory), as_json)
        elif shard is not None:
            _print_part("shard", shard, str(results.directory), as_json)
        elif is_first():
            print_findings(results, as_json)


def _print_part(kind: str, name: str, directory: str, as_json: bool) -> None:
    """Print which stage or shard was done, and where: there is nothing found yet to tell."""
    if as_json:
        typer.echo(json.dumps({"directory": directory, kind: name}, indent=2))
        return
    out = console()
    out.print(f"\n{kind.title()} {name}: {directory}", markup=False)
    if kind == "stage" and name != "report":
        again = shlex.join(["nodelens", "report", directory])
        out.print(f"Into the report with: {again}", markup=False)


def merge(
    directories: Annotated[
        list[str], typer.Argument(metavar="DIR", help="Run directories of all shards.")
    ],
    output_dir: Annotated[
        str | None, typer.Option(help="Run directory; by default that of the configuration.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep stages that finished unchanged.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put the shards of a run together and write its report."""
    with clean_errors():
        from nodelens.configs.config_loader import load_config
        from nodelens.experiments import RunResults, read_shards, started_by

        first = read_shards(directories)[0]
        named = [] if output_dir is None else [("output.directory", output_dir)]
        loaded = load_config(first.config, named)
        started = RunResults(first.folder.root).provenance.get("class")
        experiment, options = started_by(started, loaded), {"--output-dir": output_dir}
        with going_on(["merge", *directories], options, loaded.output.directory):
            results = experiment.merge(directories, resume=resume, progress=not as_json)
        print_findings(results, as_json)


def plan(
    config: ConfigFile,
    overrides: Overrides = None,
    memory_budget: Annotated[
        str | None,
        typer.Option(help="Such as '2 GiB'; wins over calibration.memory_budget."),
    ] = None,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what measuring will take. Passes, reads, memory and work; nothing is trained or read."""
    named = [] if memory_budget is None else [("calibration.memory_budget", memory_budget)]
    with clean_errors():
        from nodelens.configs.config_loader import load_config
        from nodelens.experiments.planning import plan_of

        found = plan_of(load_config(config, [*(overrides or []), *(settings or []), *named]))
        typer.echo(json.dumps(found.to_json(), indent=2) if as_json else str(found))


def print_findings(results: RunResults, as_json: bool = False) -> None:
    """Print what a run found: its headline and sentences, or all of it as JSON."""
    from nodelens.experiments.artifacts import FINDINGS

    out, told = console(), {"directory": str(results.directory)}
    # An experiment of somebody's own may end without the stages that tell of it.
    findings = results.findings if results.folder.has(FINDINGS) else None
    if as_json:
        told |= {"report": str(results.report), **findings} if findings else {}
        typer.echo(json.dumps(told, indent=2))
        return
    if findings is None:
        out.print(f"\nDone: {results.directory}", markup=False)
        return
    out.print()
    out.print(f"{findings['headline'].replace('`', '')}.", style="bold", markup=False)
    for sentence in findings["sentences"]:
        print_prose(out, f"- {sentence.replace('`', '')}")
    out.print(f"\nReport: {results.report}", markup=False)
