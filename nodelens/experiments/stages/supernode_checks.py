"""What a language model loses without its supernodes, and without their halos."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd

from nodelens import figures
from nodelens.analysis.causal import HaloAblation, HitRateSweep
from nodelens.configs import Config
from nodelens.errors import InvalidValueError
from nodelens.experiments.artifacts import CAUSAL, HALO_ABLATION, RunResults
from nodelens.experiments.sections import Drawing, leave_section
from nodelens.experiments.stage import Run, Stage
from nodelens.experiments.stages.causal import RECORD, looked_at, record_path
from nodelens.experiments.stages.supernodes import UNITS
from nodelens.model import ModelWrapper
from nodelens.report import SectionTable

__all__ = ["SupernodeCheckStage"]

DOSES = "results/supernode_doses.csv"

Sets = dict[str, dict[str, list[int]]]


class SupernodeCheckStage(Stage):
    """Writes the loss as units go, as many at every dose, and what a halo costs beside its like.

    Every evaluation is saved under `checkpoints/` as soon as it is known, to go on from.
    """

    name = "causal"
    needs = ("data", "network", "measure", "supernodes")
    code = (
        "data",
        "model",
        "interventions",
        "analysis/causal",
        "experiments/stages/causal.py",
        "experiments/stages/supernode_checks.py",
    )

    def check(self, run: Run) -> None:
        looked_at(run, _section(run.config).rows, ("supernode", "causal", "rows"))

    def settings(self, run: Run) -> Any:
        return _section(run.config).model_dump(mode="json")

    def protocol(self, config: Config) -> str:
        given = _section(config)
        rows = "all" if given.rows is None else f"the first {given.rows:,}"
        return (
            f"Units are silenced at their down projections, on {rows} validation blocks. As many go"
            " from every block at every dose: a fraction of its core, and for the rest units drawn"
            f" {given.draws} times that are neither core nor halo. A halo stands beside"
            f" {given.halo_draws} sets of such units near in score. Intervals are bootstraps, 95%."
        )

    def run(self, run: Run) -> str:
        given, model = _section(run.config), ModelWrapper(run.network)
        rows = looked_at(run, given.rows, ("supernode", "causal", "rows"))
        options: dict[str, Any] = {
            "batches": list(run.splits.batches(rows)),
            "path": record_path(run, model, given.rows),
            "site": "input",
        }
        checks, done, estimates = _checks(run), 0, []
        total = sum(check.evaluations for check in checks.values())
        for table, check in checks.items():
            watch = lambda n, _, done=done: run.advance(min(done + n, total), total)  # noqa: E731
            found = check.run(model, progress=watch, **options)
            done += check.evaluations
            run.folder.write_table(table, pd.DataFrame(list(found.rows)))
            estimates += [
                {"check": found.name, "estimate": name, **vars(estimate)}
                for name, estimate in found.estimates.items()
            ]
        run.folder.write_table(CAUSAL, pd.DataFrame(estimates))
        return f"{total:,} evaluations on {len(rows):,} validation blocks"

    def show(self, run: Run) -> None:
        causal, doses = run.folder.read_table(CAUSAL), run.folder.read_table(DOSES)
        alt = "Rise in the loss as more of the units that go are supernodes, as many at every dose."
        draw = partial(figures.plot_doses, doses, core="supernodes")
        said = causal.set_index(["check", "estimate"])
        leave_section(
            run,
            self.name,
            [Drawing("supernode_doses", alt, draw)],
            title="What supernodes are worth",
            sentence=_sentence(said.loc["hit_rate_sweep"]),
            answers="without",
            findings=(_of_halo(said.loc["halo_ablation"]),),
            tables=(SectionTable(file=CAUSAL, title="Every estimate, with its 95% interval"),),
            how="The rise in the mean loss, in nats, of validation blocks.",
        )

    def tidy(self, run: Run) -> None:
        for left in run.folder.root.glob(RECORD.format("*")):
            left.unlink(missing_ok=True)


def _section(config: Config) -> Any:
    assert config.supernode is not None, "the stage is only made for a config with the section"
    return config.supernode.causal


def _checks(run: Run) -> dict[str, HitRateSweep | HaloAblation]:
    """Return the checks by the table of their rows; ConfigError where too few units are left."""
    given, sets = _section(run.config), _sets(run.folder.read_table(UNITS))
    results, section = RunResults(run.folder.root), run.config.supernode
    assert section is not None
    scores = {n: s for n, s in results.scores.scores(section.score).items() if n in sets["core"]}
    core, others = sets["core"], sets["other"]
    try:
        return {
            DOSES: HitRateSweep(core, others, draws=given.draws, seed=given.seed),
            HALO_ABLATION: HaloAblation(
                sets["halo"], core, others, scores=scores, draws=given.halo_draws, seed=given.seed
            ),
        }
    except InvalidValueError as error:
        raise run.config.error(("supernode", "causal"), str(error)) from error


def _sets(units: pd.DataFrame) -> Sets:
    """Return the units of every block by role."""
    found: Sets = {"core": {}, "halo": {}, "other": {}}
    for (role, layer), rows in units.groupby(["role", "layer"], sort=False):
        found[str(role)][str(layer)] = rows["channel"].tolist()
    return found


def _sentence(doses: Any) -> str:
    none, every = (_told(doses.loc[f"loss_change.{dose}"]) for dose in (0, 1))
    return f"Without its supernodes the loss rises by {every} nats, without as many others {none}."


def _of_halo(halo: Any) -> str:
    p = float(halo.loc["p", "value"])
    return f"Halos cost {_told(halo.loc['gap'])} nats above units near in score (p = {p:.2g})."


def _told(row: Any) -> str:
    return f"{row['value']:.3g} [{row['low']:.3g}, {row['high']:.3g}]"
