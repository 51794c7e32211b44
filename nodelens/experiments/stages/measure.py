"""Scoring every channel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nodelens.aggregator import Aggregator
from nodelens.checkpoint import check_same
from nodelens.configs import Config
from nodelens.errors import MergeError, NodeLensError
from nodelens.experiments.artifacts import CHANNELS, SCORE_FILES, SCORES, SCORES_TABLE, STATE
from nodelens.experiments.folder import RunFolder
from nodelens.experiments.lenses import build_lens, check_lenses, wants_initial_weights
from nodelens.experiments.networks import build_network
from nodelens.experiments.provenance import package_code, source_code
from nodelens.experiments.shards import merged
from nodelens.experiments.stage import Run, Stage
from nodelens.lens import Lens
from nodelens.model.fingerprint import model_fingerprint
from nodelens.result import LensResult
from nodelens.settled import Settled

__all__ = ["MeasureStage", "write_tables"]

_UNFINISHED = "checkpoints/measure-{}-of-{}.safetensors"
_OF_ONE_STREAM = {
    "memory_budget": "a budget takes several passes over all batches",
    "until": "whether a ranking has settled shows in a stream that holds all batches",
    "standard_errors": "standard errors are of groups that hold all batches",
}
"""Settings of `calibration` that a run of one process alone can follow, and why."""


class MeasureStage(Stage):
    """Writes the scores of all lenses, measured in one pass over the calibration rows.

    A shard writes the statistics of its share instead; a merge reads those of all shards. While
    it works, every process saves its statistics under `checkpoints/`, to go on from.
    """

    name = "measure"
    needs = ("data", "network")
    shared = True
    code = (
        "data",
        "model",
        "statistics",
        "metrics",
        "lens.py",
        "stream.py",
        "reading.py",
        "composite.py",
        "aggregator.py",
        "plan",
        "experiments/stages/measure.py",
    )

    def check(self, run: Run) -> None:
        network = build_network(run.config, run.splits)
        known = run.config.is_trained_here or run.config.model.initial_checkpoint is not None
        inputs = run.splits.train.tensors[0][:2]
        check_lenses(run.config, network, inputs, network.state_dict() if known else None)
        build_lens(run.config)
        _check_alone(run)
        if run.resume:
            _check_unfinished(run, self.code)

    def settings(self, run: Run) -> Any:
        lens = build_lens(run.config)
        shard = {} if run.shard is None else {"shard": str(run.shard)}
        return {
            "lenses": [entry.model_dump(mode="json") for entry in run.config.lenses],
            "code": package_code(type(part) for part in lens.lenses),
            **run.config.calibration.model_dump(
                mode="json", include={"until", "standard_errors"}, exclude_defaults=True
            ),
            **shard,
        }

    def protocol(self, config: Config) -> str:
        rows = (
            "all" if config.calibration.rows is None else f"the first {config.calibration.rows:,}"
        )
        unit = "blocks" if config.is_language_model else "rows"
        return (
            f"Scores are measured on {rows} training {unit}, in one forward pass a batch for all"
            " lenses; the test part is never seen. No score depends on how rows fall into batches."
            f"{_followed(config)}"
        )

    def run(self, run: Run) -> str:
        lens = build_lens(run.config)
        if _of_one_stream(run):
            result = _measured_alone(run, lens, self.code)
            return _told(_write(run, result), result)
        aggregator = self._measured(run, lens)
        if run.shard is not None:
            aggregator.save(run.folder.path(STATE))
            run.folder.note([STATE])
            return f"shard {run.shard}, {aggregator.batches} batches, {aggregator.rows:,} rows"
        result = aggregator.result()
        return _told(_write(run, result), result)

    def assist(self, run: Run) -> None:
        self._measured(run, build_lens(run.config))

    def tidy(self, run: Run) -> None:
        for path in _unfinished(run) if run.ranks.index == 0 else [_unfinished_path(run)]:
            path.unlink(missing_ok=True)

    def _measured(self, run: Run, lens: Lens) -> Aggregator:
        """Return the statistics of the whole stream, or of the shard; all ranks take part."""
        about = _about(run, self.code)
        if run.shards:
            return merged(run.shards, lens, {**about, "model": model_fingerprint(run.network)})
        first = run.ranks.from_first(lambda: about)
        check_same("rank 0 of this run", first, about)
        run.weights = run.ranks.from_first(lambda: run.weights)
        about["share"] = str(run.share)
        aggregator = _measure_share(run, lens, about)
        with run.ranks.together():
            return aggregator if run.ranks.count == 1 else aggregator.gather()


def _measure_share(run: Run, lens: Lens, about: dict[str, Any]) -> Aggregator:
    total = len(run.splits.batches(run.splits.calibration, run.shard))
    try:
        aggregator = lens.measure(
            run.network,
            run.splits.batches(run.splits.calibration, run.share),
            progress=lambda done, _: run.advance(run.ranks.tell(done), total),
            **_options(run, lens, about),
        )
    except NodeLensError as error:
        if run.shard is not None:
            error.within(f"shard {run.shard}")
        raise
    run.ranks.tell(aggregator.batches, now=True)
    return aggregator


def _measured_alone(run: Run, lens: Lens, code: tuple[str, ...]) -> LensResult:
    """Return the scores of a run within its budget, until settled, or with standard errors."""
    batches, given = run.splits.batches(run.splits.calibration), run.config.calibration
    options = _options(run, lens, {**_about(run, code), "share": str(run.share)})
    if given.memory_budget is None:
        # Checks and groups are of one stream from its beginning: there is nothing to go on from.
        options["resume"] = None
    return lens.run(
        run.network,
        batches,
        progress=lambda done, _: run.advance(done, len(batches)),
        memory_budget=given.memory_budget,
        until=None if given.until is None else Settled(**given.until.model_dump()),
        standard_errors=given.standard_errors,
        **options,
    )


def _options(run: Run, lens: Lens, about: dict[str, Any]) -> dict[str, Any]:
    """Where statistics are saved as they come, and what the lens wants to know."""
    path, output = _unfinished_path(run), run.config.output
    if not run.resume:
        for left in path.parent.glob(f"{path.stem}*"):
            left.unlink(missing_ok=True)
    initial = {"initial_weights": run.weights["initial"]} if wants_initial_weights(lens) else {}
    return {
        "resume": path,
        "save_every": output.save_every,
        "save_every_seconds": output.save_every_seconds,
        "about": about,
        **initial,
    }


def _of_one_stream(run: Run) -> list[str]:
    """Return the settings that are set and need all batches in one process."""
    given = run.config.calibration
    return [name for name in _OF_ONE_STREAM if getattr(given, name) not in (None, False)]


def _check_alone(run: Run) -> None:
    shared_out = run.ranks.count > 1 or run.shard is not None or run.shards
    for name in _of_one_stream(run) if shared_out else ():
        raise run.config.error(
            ("calibration", name),
            f"{_OF_ONE_STREAM[name]}, and this run shares them out: leave one of them out",
        )


def _followed(config: Config) -> str:
    """Return what the protocol says of a stream that is looked at while it is measured."""
    given = config.calibration
    said = " Standard errors are those of a jackknife." if given.standard_errors else ""
    if given.until is not None:
        said += (
            f" Measuring ends where the top {given.until.top:.0%} of every layer stay the same over"
            f" {given.until.patience} checks in a row."
        )
    return said


def _told(counts: tuple[int, int], result: LensResult) -> str:
    channels, scores = counts
    return f"{scores} scores of {channels:,} channels in {len(result)} layers"


def _about(run: Run, code: tuple[str, ...]) -> dict[str, Any]:
    """Return what decides the statistics: whoever goes on with them must have the same."""
    sections: dict[str, Any] = {
        "experiment": {"seed"},
        "model": {"name", "options"},
        "dataset": True,
        "calibration": True,
        "lenses": True,
    }
    if run.config.model.checkpoint is None:
        sections["training"] = True
    config = run.config.model_dump(mode="json", include=sections)
    parts = build_lens(run.config).lenses
    sources = {"nodelens": source_code(*code), "lenses": package_code(type(p) for p in parts)}
    return {"config": config, "data": run.splits.fingerprint, "code": sources}


def _unfinished_path(run: Run) -> Path:
    return run.folder.path(_UNFINISHED.format(run.share.index + 1, run.share.count))


def _unfinished(run: Run) -> list[Path]:
    return sorted(run.folder.root.glob(_UNFINISHED.format("*", "*")))


def _check_unfinished(run: Run, code: tuple[str, ...]) -> None:
    """Raise MergeError, before anything is written, for statistics of something else."""
    about, mine = _about(run, code), _unfinished_path(run)
    for path in _unfinished(run):
        share = Aggregator.facts(path)["share"]
        if not share.endswith(f"/{run.share.count}"):
            raise MergeError(
                f"{path.name!r} in {str(run.folder.root)!r} is share {share} of an unfinished run,"
                f" and this run would go on with shares of {run.share.count}; expected as many"
                " processes as before, or a run without --resume"
            )
    if mine.exists():
        check_same(f"{mine.name!r} of the unfinished run", Aggregator.facts(mine), about)


def _write(run: Run, result: LensResult) -> tuple[int, int]:
    """Write the scores as tensors and tables, and return how many channels and scores."""
    result.save(run.folder.path(SCORES))
    run.folder.note(SCORE_FILES)
    return write_tables(run.folder, result)


def write_tables(folder: RunFolder, result: LensResult) -> tuple[int, int]:
    """Write the scores as tables, and return how many channels and scores there are."""
    table = result.to_pandas()
    folder.write_table(SCORES_TABLE, table)
    table = table[table["channel"].notna()]
    wide = table.pivot(index=["layer", "channel"], columns="score", values="value")
    wide = wide.reindex(index=table.set_index(["layer", "channel"]).index.unique())
    channels = wide[list(dict.fromkeys(table["score"]))].reset_index()
    folder.write_table(CHANNELS, channels)
    return len(channels), channels.shape[1] - 2
