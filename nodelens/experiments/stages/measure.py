"""Scoring every channel."""

from __future__ import annotations

from typing import Any

from nodelens.configs import Config
from nodelens.experiments.artifacts import CHANNELS, SCORES, SCORES_TABLE
from nodelens.experiments.lenses import build_lens, check_lenses, wants_initial_weights
from nodelens.experiments.networks import build_network, initial_weights
from nodelens.experiments.provenance import package_code
from nodelens.experiments.stage import Run, Stage

__all__ = ["MeasureStage"]


class MeasureStage(Stage):
    """Writes the scores of all lenses, measured in one pass over the calibration rows."""

    name = "measure"
    needs = ("data", "network")
    code = (
        "data",
        "model",
        "statistics",
        "metrics",
        "lens.py",
        "reading.py",
        "composite.py",
        "aggregator.py",
        "plan",
        "experiments/stages/measure.py",
    )

    def check(self, run: Run) -> None:
        network = build_network(run.config, run.splits)
        model = run.config.model
        known = model.checkpoint is None or model.initial_checkpoint is not None
        inputs = run.splits.train.tensors[0][:2]
        check_lenses(run.config, network, inputs, network.state_dict() if known else None)
        build_lens(run.config)

    def settings(self, run: Run) -> Any:
        lens = build_lens(run.config)
        return {
            "lenses": [entry.model_dump(mode="json") for entry in run.config.lenses],
            "code": package_code(type(part) for part in lens.lenses),
        }

    def protocol(self, config: Config) -> str:
        rows = (
            "all" if config.calibration.rows is None else f"the first {config.calibration.rows:,}"
        )
        return (
            f"Scores are measured on {rows} training rows, in one forward pass a batch for all"
            " lenses; the test rows are never seen. No score depends on how rows fall into batches."
        )

    def run(self, run: Run) -> str:
        lens = build_lens(run.config)
        batches = run.splits.batches(run.splits.calibration)
        options: dict[str, Any] = {}
        if wants_initial_weights(lens):
            options["initial_weights"] = initial_weights(run.folder)
        total = len(batches)
        result = lens.run(
            run.network,
            batches,
            progress=lambda done, _: run.advance(done, total),
            memory_budget=run.config.calibration.memory_budget,
            **options,
        )
        result.save(run.folder.path(SCORES))
        run.folder.note([f"{SCORES}/scores.safetensors", f"{SCORES}/result.json"])
        table = result.to_pandas()
        run.folder.write_table(SCORES_TABLE, table)
        wide = table.pivot(index=["layer", "channel"], columns="score", values="value")
        wide = wide.reindex(index=table.set_index(["layer", "channel"]).index.unique())
        channels = wide[list(dict.fromkeys(table["score"]))].reset_index()
        run.folder.write_table(CHANNELS, channels)
        return (
            f"{channels.shape[1] - 2} scores of {len(channels):,} channels in {len(result)}"
            f" layers, {total} batches"
        )
