"""Comparing runs: how alike their scores rank channels, and accuracy over runs with intervals."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import combinations, compress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nodelens.errors import InvalidValueError, UnknownNameError, nearest
from nodelens.experiments.artifacts import RunResults
from nodelens.experiments.latex import latex_table
from nodelens.experiments.paired import interval, paired_tests
from nodelens.experiments.posthoc import opened
from nodelens.notebook import html_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["Comparison", "compare"]

_MEASURES = ("test_accuracy", "test_perplexity", "test_loss")
_CONDITION = ("experiment", "network", "data")
_WEIGHTS = "checkpoints/trained.safetensors"


@dataclass(frozen=True)
class Comparison:
    """Tables over runs; every interval is Student's, 95%, with a run as one observation.

    `runs` has a row a run, `networks` a row a measure of the whole network, `agreement` a row a
    score and pair of runs, `curves` a row an order and amount silenced, `tests` a row a pair of
    conditions. Only runs of one condition (experiment, network and data) are averaged. `notes` say
    what does not compare.
    """

    runs: pd.DataFrame
    networks: pd.DataFrame
    agreement: pd.DataFrame
    curves: pd.DataFrame
    tests: pd.DataFrame
    notes: Sequence[str]

    @property
    def tables(self) -> Mapping[str, pd.DataFrame]:
        """Return the tables by name."""
        names = ("runs", "networks", "agreement", "curves", "tests")
        return {name: getattr(self, name) for name in names}

    def to_json(self) -> dict[str, Any]:
        """Return the tables as lists of rows, and the notes; what is not a number is None."""
        rows = {name: json.loads(t.to_json(orient="records")) for name, t in self.tables.items()}
        return {**rows, "notes": list(self.notes)}

    def _repr_html_(self) -> str:
        tables = [
            html_table(list(map(str, table.columns)), table.to_numpy().tolist(), name)
            for name, table in self.tables.items()
            if not table.empty
        ]
        return "".join([*tables, *(f"<p>{escape(note)}</p>" for note in self.notes)])

    def to_latex(self, name: str) -> str:
        """Return a table for papers, of LaTeX's package booktabs; intervals stand in one column."""
        if name not in self.tables:
            known = ", ".join(self.tables)
            raise UnknownNameError(
                f"no table {name!r}{nearest(name, self.tables)}; there are {known}"
            )
        return latex_table(self.tables[name])

    def plot(self, ax: Axes | None = None) -> Axes:
        """Return axes with the curves of silenced channels and their intervals over runs."""
        from nodelens.figures import plot_sparsity

        differ = [name for name in _CONDITION if self.curves[name].nunique() > 1]
        orders = self.curves["score"] + ", " + self.curves["mode"] + " first"
        names = orders.replace("random, random first", "random")
        for name in reversed(differ):
            names = self.curves[name] + ", " + names
        table = self.curves.rename(columns={"mean": "accuracy"}).assign(label=names)
        controls = set(names[self.curves["score"] == "random"])
        ax = plot_sparsity(table, ax, by="label", controls=controls, name="test accuracy")
        ax.set_xlabel("share of channels silenced")
        return ax

    def save(self, directory: str | Path) -> None:
        """Write every table as CSV and LaTeX, empty ones as CSV alone, and the curves as figure."""
        from nodelens.files import write_text

        for name, table in self.tables.items():
            write_text(Path(directory) / f"{name}.csv", table.to_csv(index=False))
            if not table.empty:
                write_text(Path(directory) / f"{name}.tex", latex_table(table))
        if not self.curves.empty:
            self._save_figure(Path(directory))

    def _save_figure(self, directory: Path) -> None:
        from matplotlib import pyplot

        from nodelens.figures import save_figure

        ax = self.plot()
        for kind in ("png", "svg", "pdf"):
            save_figure(ax, directory / f"curves.{kind}")
        pyplot.close(cast("Any", ax.get_figure()))


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
        tests=_tests(runs),
        notes=_notes(runs, same),
    )


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


def _condition(run: RunResults) -> dict[str, str]:
    """Return what runs share that differ in nothing but their seed."""
    about = (run.provenance["experiment"], run.network["name"], run.dataset["name"])
    return dict(zip(_CONDITION, about, strict=True))


def _networks(runs: Mapping[str, RunResults]) -> pd.DataFrame:
    import pandas as pd

    columns = [*_CONDITION, "measure", "value"]
    rows = [
        {**_condition(run), "measure": key, "value": run.network[key]}
        for key in _MEASURES
        for run in runs.values()
        if key in run.network
    ]
    return _over_runs(pd.DataFrame(rows, columns=columns), columns[:-1], "value")


def _over_runs(table: pd.DataFrame, keys: Sequence[str], value: str) -> pd.DataFrame:
    """Return mean and interval of a column for each group of rows that share the keys."""
    import pandas as pd

    found = []
    for key, rows in table.groupby([*keys], sort=False)[value]:
        mean, low, high = interval(rows.tolist())
        told = {"runs": len(rows), "mean": mean, "low": low, "high": high}
        found.append({**dict(zip(keys, cast("tuple[Any, ...]", key), strict=True)), **told})
    return pd.DataFrame(found, columns=[*keys, "runs", "mean", "low", "high"])


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


def _silenced(runs: Mapping[str, RunResults]) -> pd.DataFrame:
    """Return each run's test accuracy by order and amount; its random orders count as one."""
    import pandas as pd

    keys = ["score", "mode", "amount"]
    tables = [pd.DataFrame(columns=["run", *_CONDITION, *keys, "accuracy"])]
    for name, run in runs.items():
        if (table := run.sensitivity) is not None:
            tested = table[table["split"] == "test"]
            means = tested.groupby(keys, sort=False)["accuracy"].mean().reset_index()
            tables.append(means.assign(run=name, **_condition(run)))
    return pd.concat(tables[1:]) if len(tables) > 1 else tables[0]


def _curves(runs: Mapping[str, RunResults]) -> pd.DataFrame:
    """Return test accuracy by order and amount over the runs of a condition."""
    return _over_runs(_silenced(runs), [*_CONDITION, "score", "mode", "amount"], "accuracy")


def _tests(runs: Mapping[str, RunResults]) -> pd.DataFrame:
    """Return paired tests of orders over runs, then of conditions over seeds.

    An order counts by its mean accuracy over the amounts silenced, 0 left out: one number a run.
    """
    import pandas as pd

    short = _short_conditions(runs)
    table = _silenced(runs)
    table = table[table["amount"] > 0]
    found = []
    for where, mine in table.groupby(table["run"].map(short), sort=False):
        order = mine["score"].astype(str) + ", " + mine["mode"].astype(str) + " first"
        means = mine["accuracy"].groupby([order, mine["run"]], sort=False).mean()
        by_order: dict[str, dict[Any, float]] = {}
        for (name, run), value in cast("Iterable[Any]", means.items()):
            by_order.setdefault(name.removesuffix(", random first"), {})[run] = float(value)
        found.append(paired_tests(f"accuracy when silenced, {where}".removesuffix(", "), by_order))
    return pd.concat([*found, *_between_conditions(runs, short)], ignore_index=True)


def _short_conditions(runs: Mapping[str, RunResults]) -> dict[str, str]:
    """Return the condition of every run, without what all have in common."""
    told = {name: tuple(_condition(run).values()) for name, run in runs.items()}
    differ = [len(set(values)) > 1 for values in zip(*told.values(), strict=True)]
    return {name: " / ".join(compress(parts, differ)) for name, parts in told.items()}


def _between_conditions(
    runs: Mapping[str, RunResults], short: Mapping[str, str]
) -> Iterable[pd.DataFrame]:
    """Yield, for each measure of whole networks, tests of conditions paired by seed."""
    for measure in _MEASURES:
        values: dict[str, dict[Any, float]] = {}
        for name, run in runs.items():
            if measure in run.network:
                values.setdefault(short[name], {})[run.provenance["seed"]] = run.network[measure]
        yield paired_tests(measure, values)


def _notes(runs: Mapping[str, RunResults], same: Mapping[str, str | None]) -> list[str]:
    notes = []
    if len(set(same.values())) > 1 or None in same.values():
        notes.append(
            "networks differ: channel 3 of one is not channel 3 of another, so rank agreement"
            " between them is expected near 0; curves and measures of whole networks compare"
        )
    told = Counter((*_condition(r).values(), r.provenance["seed"]) for r in runs.values())
    if twice := sorted({str(key[-1]) for key, number in told.items() if number > 1}):
        notes.append(
            f"runs of one condition have the same seed ({', '.join(twice)}): means count each,"
            " tests between conditions the last; give what differs an experiment name of its own"
        )
    if len({run.dataset["fingerprint"] for run in runs.values()}) > 1:
        notes.append("data, or their division, differ between runs")
    return notes
