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
    typer.Option("--set", metavar="KEY.SUB=VALUE", help="The same, once for each value."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")]


ConfigFile = Annotated[str, typer.Argument(help="A YAML file.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY.SUB=VALUE]...", help="Values that win over the file.", show_default=False
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
            out = console()
            out.print(f"\nStage {only}: {results.directory}", markup=False)
            if only != "report":
                again = shlex.join(["nodelens", "report", str(results.directory)])
                out.print(f"Into the report with: {again}", markup=False)
        elif shard is not None:
            console().print(f"\nShard {shard}: {results.directory}", markup=False)
        elif is_first():
            print_findings(results, as_json)


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
    with clean_errors():
        from nodelens.configs.config_loader import load_config
        from nodelens.experiments import RunResults, read_shards, started_by

        first = read_shards(directories)[0]
        named = [] if output_dir is None else [("output.directory", output_dir)]
        loaded = load_config(first.config, named)
        started = RunResults(first.folder.root).provenance.get("class")
        experiment, options = started_by(started, loaded), {"--output-dir": output_dir}
        with going_on(["merge", *directories], options, loaded.output.directory):
            results = experiment.merge(directories, resume=resume)
        print_findings(results)


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
    out = console()
    findings = results.findings
    if as_json:
        told = {"directory": str(results.directory), "report": str(results.report), **findings}
        typer.echo(json.dumps(told, indent=2))
        return
    out.print()
    out.print(f"{findings['headline'].replace('`', '')}.", style="bold", markup=False)
    for sentence in findings["sentences"]:
        print_prose(out, f"- {sentence.replace('`', '')}")
    out.print(f"\nReport: {results.report}", markup=False)
