"""Writing the report page from the files of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from nodelens.configs import Config
from nodelens.configs.document import write_yaml
from nodelens.experiments.artifacts import (
    CHANNELS,
    FIGURES,
    REPORT,
    REPORT_JSON,
    REPORT_MARKDOWN,
    SCORES,
    RunResults,
)
from nodelens.experiments.folder import RunFolder
from nodelens.experiments.language import shown_name
from nodelens.experiments.sections import section_digests, shown_sections, with_sections
from nodelens.experiments.stage import Run, Stage
from nodelens.figures.style import shown_unit
from nodelens.report import (
    Figure,
    Findings,
    Page,
    Table,
    channel_data,
    render_markdown,
    render_page,
    report_data,
)

__all__ = ["ReportStage"]

MOST_NUMBERS = 1_500_000
"""Numbers of channels on the page: it stays below 15 MB."""
_PLACES = {"model": ("checkpoint", "initial_checkpoint"), "dataset": ("name", "folder")}


class ReportStage(Stage):
    """Writes the report as HTML, Markdown and JSON."""

    name = "report"
    needs = ("data", "network", "measure", "sensitivity", "analysis", "figures")
    code = (
        "report",
        "figures/style.py",
        "experiments/sections.py",
        "experiments/stages/report.py",
    )
    derived = True
    collects = True

    def settings(self, run: Run) -> Any:
        return {
            "experiment": run.config.experiment.model_dump(mode="json"),
            "sections": section_digests(run.folder),
        }

    def protocol(self, config: Config) -> str:
        return "Every number on the page is read from the files of this run."

    def run(self, run: Run) -> str:
        page = build_page(run.config, run.folder)
        run.folder.write_text(REPORT, render_page(page))
        run.folder.write_text(REPORT_MARKDOWN, render_markdown(page))
        run.folder.write_json(REPORT_JSON, report_data(page))
        size = run.folder.path(REPORT).stat().st_size
        return f"{REPORT}, one page of {size / 1e6:.1f} MB"


def build_page(config: Config, folder: RunFolder) -> Page:
    """Return what the report of a run shows, read from its files."""
    results = RunResults(folder.root)
    pictures = _pictures(folder)
    scores = results.scores
    means = results.layer_means
    provenance = results.provenance
    channels = with_sections(results.channels, folder)
    most = MOST_NUMBERS // max(1, channels.shape[1] - 2)
    tested = list(config.sensitivity.scores) if config.sensitivity else scores.score_names[:5]
    return Page(
        title=config.experiment.name,
        kind=config.experiment_type.replace("_", " "),
        findings=Findings.from_plain(results.findings),
        curves=pictures["curve"],
        heatmap=next(iter(pictures["heatmap"]), None),
        depth=next(iter(pictures["depth"]), None),
        correlation=next(iter(pictures["correlation"]), None),
        channels=channel_data(channels.head(most), scores.units, tested),
        omitted=max(0, len(channels) - most),
        parts=shown_sections(folder),
        accuracies=_accuracies(results.sensitivity),
        layer_means=Table(
            ["score", "unit", *means.columns],
            [
                [str(name), shown_unit(scores.units.get(str(name), "")), *(f"{v:.4g}" for v in row)]
                for name, row in zip(means.index, means.to_numpy(), strict=True)
            ],
        ),
        protocol=provenance["protocol"],
        facts=_facts(provenance, results),
        stages=_stages(provenance),
        config=_shared_config(config),
        files=[
            (f"{SCORES}/", "raw scores of every channel (safetensors), units and options (JSON)"),
            (CHANNELS, "a row a channel, a column a score"),
            ("results/sensitivity.csv", "accuracy and loss by order and amount silenced"),
            ("figures/", "every figure as PNG and SVG"),
            ("analysis/", "rank correlations, means and ranks by layer, findings"),
            ("report.md, report.json", "this report in two further forms"),
            ("provenance.json", "versions, seeds, protocol, digests of all files"),
        ],
    )


def _pictures(folder: RunFolder) -> dict[str, list[Figure]]:
    """Return the figures by kind."""
    kinds = ("curve", "heatmap", "correlation", "depth")
    found: dict[str, list[Figure]] = {kind: [] for kind in kinds}
    for entry in folder.read_json(FIGURES):
        # The page draws the spread of scores itself, of any score in any layer.
        if entry["kind"] in kinds:
            found[entry["kind"]].append(_picture(folder, entry))
    return found


def _picture(folder: RunFolder, entry: dict[str, Any]) -> Figure:
    svg = folder.path(f"{entry['file']}.svg").read_bytes()
    return Figure(entry["name"], svg, entry["alt"], entry["width"], file=entry["file"])


def _accuracies(table: pd.DataFrame | None) -> Table | None:
    """Return test accuracy by order (row) and amount (column); random orders as their mean."""
    if table is None:
        return None
    tested = table[table["split"] == "test"]
    wide = tested.pivot_table(
        index=["score", "mode"], columns="amount", values="accuracy", aggfunc="mean", sort=False
    )
    words = {"low": ", lowest first", "high": ", highest first", "random": " (mean)"}
    return Table(
        ["order", *(f"{amount:.0%}" for amount in wide.columns)],
        [
            [f"{score}{words[mode]}", *(f"{value:.1%}" for value in row)]
            for (score, mode), row in zip(wide.index, wide.to_numpy(), strict=True)
        ],
    )


def _facts(provenance: dict[str, Any], results: RunResults) -> dict[str, str]:
    environment = provenance["environment"]
    git = environment["git"]
    packages = ", ".join(f"{n} {v}" for n, v in environment["packages"].items() if v)
    code = "unknown" if git is None else git["commit"][:12] + (", changed" * git["changed"])
    return {
        "started": provenance["started"].replace("T", " ").replace("+00:00", " UTC"),
        "seed": str(provenance["seed"]),
        "network": f"{results.network['name']}, {results.network['parameters']:,} parameters",
        "data": f"{results.dataset['note']}; digest {results.dataset['fingerprint']}",
        "machine": (
            f"{environment['platform']}, {environment['device']},"
            f" {environment['torch_threads']} threads, Python {environment['python']}"
        ),
        "packages": packages,
        "commit": code,
    }


def _shared_config(config: Config) -> str:
    """Return the configuration as YAML without the places of files: a report is passed on."""
    plain = config.model_dump(mode="json", exclude={"output"})
    plain["model"]["name"] = shown_name(config)
    for section, keys in _PLACES.items():
        for key in keys:
            if plain[section][key] is not None:
                plain[section][key] = Path(plain[section][key]).name
    return write_yaml(plain)


def _stages(provenance: dict[str, Any]) -> Table:
    rows = [
        [name, f"{entry['seconds']:.1f}", entry["summary"]]
        for name, entry in provenance["stages"].items()
        if entry["status"] == "finished" and entry["seconds"] is not None
    ]
    return Table(["stage", "seconds", "what came out"], rows)
