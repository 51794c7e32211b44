"""The commands on finished or unfinished runs: `resume`, `analyse`, `report`, `compare`."""

from __future__ import annotations

import json
from enum import Enum
from typing import Annotated

import typer

from nodelens.cli.console import clean_errors, console, going_on, is_first
from nodelens.cli.runs import AsJson, Settings, print_findings
from nodelens.cli.tables import print_prose, print_table

__all__ = ["analyse", "compare", "report", "resume"]

Directory = Annotated[str, typer.Argument(metavar="DIR", help="A run directory.")]


class Form(str, Enum):
    """The forms that a report has."""

    html = "html"
    md = "md"
    json = "json"


def resume(directory: Directory, settings: Settings = None, as_json: AsJson = False) -> None:
    """Go on with a run where it stopped. The configuration is that in its directory."""
    with clean_errors():
        from nodelens.configs.config_loader import load_config
        from nodelens.experiments import RunResults, saved_config, started_by
        from nodelens.experiments.artifacts import CONFIG

        saved, given = saved_config(directory), RunResults(directory)
        path = given.folder.path(CONFIG)
        place = ("output.directory", saved.output.directory)
        loaded = load_config(path, [*(settings or []), place]) if settings else saved
        experiment = started_by(given.provenance.get("class"), loaded)
        words = ["resume", directory, *(f"--set={setting}" for setting in settings or [])]
        with going_on(words, {}, directory, again=()):
            shown = is_first() and not as_json
            results = experiment.run(resume=True, progress=shown)
        if is_first():
            print_findings(results, as_json)


def analyse(
    directory: Directory,
    output_dir: Annotated[
        str, typer.Option(help="Where tables, figures and report go: a new folder.")
    ],
    as_json: AsJson = False,
) -> None:
    """Make tables, figures and report from saved scores. They go to another folder."""
    with clean_errors():
        from nodelens.experiments import analyse as analyse_run

        print_findings(analyse_run(directory, output_dir, progress=not as_json), as_json)


def report(
    directory: Directory,
    form: Annotated[
        Form | None, typer.Option("--format", help="Print the report in this form.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make figures and report again, in the run's own directory."""
    with clean_errors():
        from nodelens.experiments import rebuild_report

        results = rebuild_report(directory, progress=not as_json and form is None)
        if form is None:
            print_findings(results, as_json)
        else:
            typer.echo(results.report.with_suffix(f".{form.value}").read_text("utf-8"), nl=False)


def compare(
    directories: Annotated[list[str], typer.Argument(metavar="DIR", help="Run directories.")],
    output_dir: Annotated[
        str | None, typer.Option(help="Write tables (CSV, LaTeX) and a figure here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare runs and seeds. Rank agreement of scores, accuracy with intervals, paired tests."""
    with clean_errors():
        from nodelens.experiments import compare as compare_runs

        found = compare_runs(directories)
        if output_dir is not None:
            found.save(output_dir)
        if as_json:
            typer.echo(json.dumps(found.to_json(), indent=2))
            return
        out = console()
        for name, table in found.tables.items():
            if not table.empty:
                print_table(out, _TITLES[name], table)
        for note in found.notes:
            print_prose(out, f"\nNote: {note}.")


_TITLES = {
    "runs": "Runs",
    "networks": "Whole networks: mean and 95% interval over runs",
    "agreement": "Rank agreement of scores within layers (Spearman)",
    "curves": "Test accuracy by share of channels silenced: mean and 95% interval over runs",
    "tests": "Paired tests over runs or seeds (Holm-corrected within a measure)",
}
