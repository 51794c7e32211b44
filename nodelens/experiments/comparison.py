"""Comparing runs: how alike their scores rank channels, and accuracy over runs with intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nodelens.errors import InvalidValueError
from nodelens.experiments.artifacts import RunResults
from nodelens.experiments.posthoc import opened

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Comparison", "compare", "interval"]

_MEASURES = ("test_accuracy", "test_perplexity", "test_loss")
_WEIGHTS = "checkpoints/trained.safetensors"


@dataclass(frozen=True)
class Comparison:
    """Tables over runs; every interval is Student's, 95%, with a run as one observation.

    `runs` has a row a run, `networks` a row a measure of the whole network, `agreement` a row a
    score and pair of runs, `curves` a row an order and amount silenced. `notes` say what does not
    compare.
    """

    runs: pd.DataFrame
    networks: pd.DataFrame
    agreement: pd.DataFrame
    curves: pd.DataFrame
    notes: Sequence[str]

    @property
    def tables(self) -> Mapping[str, pd.DataFrame]:
        """Return the tables by name."""
        names = ("runs", "networks", "agreement", "curves")
        return {name: getattr(self, name) for name in names}

    def to_json(self) -> dict[str, Any]:
        """Return the tables as lists of rows, and the notes; what is not a number is None."""
        rows = {name: json.loads(t.to_json(orient="records")) for name, t in self.tables.items()}
        return {**rows, "notes": list(self.notes)}

    def save(self, directory: str | Path) -> None:
        """Write every table as CSV."""
        from nodelens.files import write_text

        for name, table in self.tables.items():
            write_text(Path(directory) / f"{name}.csv", table.to_csv(index=False))


def compare(directories: Sequence[str | Path]) -> Comparison:
    """Return what the runs in `directories`, two or more, have in common.

    Raises InvalidValueError for fewer or the same twice, OutputError for a folder that is no run.
    """
    folders = [opened(directory) for directory in directories]
    if len({folder.root.resolve() for folder in folders}) < max(2, len(folders)):
        raise InvalidValueError(
            f"{len(folders)} run directories are given, expected two or more, each once"
        )
    found = [RunResults(folder.root) for folder in folders]
    names = _names(found)
    runs = dict(zip(names, found, strict=True))
    same = {name: _network(run) for name, run in runs.items()}
    return Comparison(
        runs=_runs(runs),
        networks=_networks(runs),
        agreement=_agreement(runs, same),
        curves=_curves(runs),
        notes=_notes(runs, same),
    )


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean and Student's 95% interval of independent values; NaN for one alone.

    >>> tuple(round(bound, 3) for bound in interval([1.0, 2.0, 3.0]))
    (2.0, -0.484, 4.484)
    """
    from scipy.stats import t

    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return mean, float("nan"), float("nan")
    reach = float(t.ppf(0.975, count - 1) * np.std(values, ddof=1) / np.sqrt(count))
    return mean, mean - reach, mean + reach


def _names(found: Sequence[RunResults]) -> list[str]:
    """Return the names of the folders, with their parents' where two are called the same."""
    names = [run.directory.resolve().name for run in found]
    if len(set(names)) == len(names):
        return names
    return ["/".join(run.directory.resolve().parts[-2:]) for run in found]


def _network(run: RunResults) -> str | None:
    """Return what tells one network from another, None where it is not on record."""
    files = run.provenance["stages"].get("network", {}).get("files", {})
    fingerprint = run.network.get("fingerprint")
    return files.get(_WEIGHTS) or (json.dumps(fingerprint) if fingerprint else None)


def _runs(runs: Mapping[str, RunResults]) -> pd.DataFrame:
    import pandas as pd

    rows = [
        {
            "run": name,
            "experiment": run.provenance["experiment"],
            "seed": run.provenance["seed"],
            "network": run.network["name"],
            "data": run.dataset["name"],
            **{key: run.network[key] for key in _MEASURES if key in run.network},
        }
        for name, run in runs.items()
    ]
    return pd.DataFrame(rows)


def _networks(runs: Mapping[str, RunResults]) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for key in _MEASURES:
        values = [run.network[key] for run in runs.values() if key in run.network]
        if values:
            rows.append({"measure": key, **_summary(values)})
    return pd.DataFrame(rows, columns=["measure", "runs", "mean", "low", "high"])


def _summary(values: Sequence[float]) -> dict[str, Any]:
    mean, low, high = interval(values)
    return {"runs": len(values), "mean": mean, "low": low, "high": high}


def _agreement(runs: Mapping[str, RunResults], same: Mapping[str, str | None]) -> pd.DataFrame:
    """Return, for each score and pair of runs, Spearman's correlation within layers.

    Layers count by their channels, as in a run's own rank correlation.
    """
    import pandas as pd

    rows = []
    for one, other in combinations(runs, 2):
        first, second = runs[one].channels, runs[other].channels
        joined = first.merge(second, on=["layer", "channel"], suffixes=("\0a", "\0b"))
        alike = same[one] is not None and same[one] == same[other]
        for score in [str(n) for n in first.columns[2:] if n in second.columns]:
            found, count = _within_layers(joined, f"{score}\0a", f"{score}\0b")
            told = {"score": score, "run": one, "other": other, "same_network": alike}
            rows.append({**told, "channels": count, "rank_correlation": found})
    columns = ["score", "run", "other", "same_network", "channels", "rank_correlation"]
    return pd.DataFrame(rows, columns=columns)


def _within_layers(joined: pd.DataFrame, one: str, other: str) -> tuple[float, int]:
    total, count = 0.0, 0
    for _, rows in joined.groupby("layer", sort=False):
        found = rows[[one, other]].dropna()
        if len(found) < 2 or found[one].nunique() < 2 or found[other].nunique() < 2:
            continue
        total += float(found[one].corr(found[other], method="spearman")) * len(found)
        count += len(found)
    return (total / count if count else float("nan")), count


def _curves(runs: Mapping[str, RunResults]) -> pd.DataFrame:
    """Return test accuracy by order and amount over runs; a run's random orders count as one."""
    import pandas as pd

    keys = ["score", "mode", "amount"]
    tables = []
    for name, run in runs.items():
        if (table := run.sensitivity) is not None:
            tested = table[table["split"] == "test"]
            means = tested.groupby(keys, sort=False)["accuracy"].mean().reset_index()
            tables.append(means.assign(run=name))
    columns = [*keys, "runs", "mean", "low", "high"]
    if not tables:
        return pd.DataFrame(columns=columns)
    grouped = pd.concat(tables).groupby(keys, sort=False)["accuracy"]
    found = [{**dict(zip(keys, key, strict=True)), **_summary(list(v))} for key, v in grouped]
    return pd.DataFrame(found, columns=columns)


def _notes(runs: Mapping[str, RunResults], same: Mapping[str, str | None]) -> list[str]:
    notes = []
    if len(set(same.values())) > 1 or None in same.values():
        notes.append(
            "networks differ: channel 3 of one is not channel 3 of another, so rank agreement"
            " between them is expected near 0; curves and measures of whole networks compare"
        )
    if len({run.dataset["fingerprint"] for run in runs.values()}) > 1:
        notes.append("data, or their division, differ between runs")
    return notes
