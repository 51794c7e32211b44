"""Scoring every channel."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from torch import nn

from nodelens.aggregator import Aggregator
from nodelens.checkpoint import check_same
from nodelens.composite import CompositeLens
from nodelens.configs import Config
from nodelens.errors import InvalidValueError, MergeError, NodeLensError
from nodelens.experiments.artifacts import CHANNELS, SCORE_FILES, SCORES, SCORES_TABLE
from nodelens.experiments.folder import RunFolder
from nodelens.experiments.lenses import build_lens, check_lenses, wants_initial_weights
from nodelens.experiments.networks import build_network
from nodelens.experiments.provenance import package_code, source_code
from nodelens.experiments.shards import merged, save_share
from nodelens.experiments.stage import Run, Stage
from nodelens.model.fingerprint import model_fingerprint
from nodelens.plan import Passes, Step
from nodelens.result import LensResult
from nodelens.settled import Settled

__all__ = ["MeasureStage", "write_tables"]

_UNFINISHED = "checkpoints/measure-{}-of-{}.safetensors"
_OF_ONE_STREAM = {
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
        "followers.py",
        "settled.py",
        "jackknife.py",
        "plan",
        "experiments/stages/measure.py",
    )

    def check(self, run: Run) -> None:
        network = build_network(run.config, run.splits)
        known = run.config.is_trained_here or run.config.model.initial_checkpoint is not None
        inputs = run.splits.train.tensors[0][:2]
        check_lenses(run.config, network, inputs, network.state_dict() if known else None)
        lens = build_lens(run.config)
        _check_alone(run)
        try:
            _planned(run, lens, network.eval(), network.state_dict())
        except InvalidValueError as error:
            raise run.config.error(("calibration", "memory_budget"), str(error)) from error
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
            result = _followed_result(run, lens)
            return _told(_write(run, result), result)
        passes = self._passes(run, lens)
        for number, step in enumerate(passes.steps):
            aggregator = self._measured(run, passes, number)
            seen = aggregator.batches, aggregator.rows
            if run.shard is None:
                passes.take(step, aggregator.result())
            else:
                run.folder.note([save_share(run.folder, step, aggregator)])
            del aggregator  # or it would be there while the next step is measured
        if run.shard is not None:
            return f"shard {run.shard}, {seen[0]} batches, {seen[1]:,} rows"
        result = passes.result()
        return _told(_write(run, result), result)

    def assist(self, run: Run) -> None:
        passes = self._passes(run, build_lens(run.config))
        for number in range(len(passes.steps)):
            self._measured(run, passes, number)

    def tidy(self, run: Run) -> None:
        for path in _unfinished(run) if run.ranks.index == 0 else _left_behind(run):
            path.unlink(missing_ok=True)

    def _passes(self, run: Run, lens: CompositeLens) -> Passes:
        """Return the passes over the stream that keep to the budget, the same in every process."""
        if not run.shards:
            about = _about(run, self.code)
            check_same("rank 0 of this run", run.ranks.from_first(lambda: about), about)
            run.weights = run.ranks.from_first(lambda: run.weights)
            if not run.resume:
                for path in _left_behind(run):
                    path.unlink(missing_ok=True)
        return _planned(run, lens, run.network, run.weights["initial"])

    def _measured(self, run: Run, passes: Passes, number: int) -> Aggregator:
        """Return what a step has of the whole stream, or of the shard; all ranks take part."""
        about, step = _about(run, self.code), passes.steps[number]
        if run.shards:
            return merged(run.shards, step, {**about, "model": model_fingerprint(run.network)})
        about["share"] = str(run.share)
        aggregator = _measure_share(run, passes, number, about)
        with run.ranks.together():
            return aggregator if run.ranks.count == 1 else aggregator.gather()


def _planned(run: Run, lens: CompositeLens, network: nn.Module, initial: Any) -> Passes:
    budget, options = run.config.calibration.memory_budget, _initial(lens, initial)
    if budget is None:
        return Passes(lens, network, [Step("", lens, options)])
    first = list(islice(run.splits.batches(run.splits.calibration), 1))
    return lens.passes(network, first, budget, merged=_is_shared(run), **options)


def _measure_share(run: Run, passes: Passes, number: int, about: dict[str, Any]) -> Aggregator:
    step, output = passes.steps[number], run.config.output
    batches = run.splits.batches(run.splits.calibration, run.share)
    total = len(run.splits.batches(run.splits.calibration, run.shard)) * len(passes.steps)
    before = number * len(batches)
    try:
        aggregator = step.lens.measure(
            passes.model,
            batches,
            progress=lambda done, _: run.advance(run.ranks.tell(before + done), total),
            resume=step.file(_unfinished_path(run)),
            save_every=output.save_every,
            save_every_seconds=output.save_every_seconds,
            about=about,
            **step.options,
        )
    except NodeLensError as error:
        if run.shard is not None:
            error.within(f"shard {run.shard}")
        raise
    run.ranks.tell(before + aggregator.batches, now=True)
    return aggregator


def _followed_result(run: Run, lens: CompositeLens) -> LensResult:
    """Return the scores of a stream that is looked at while it is measured."""
    batches, given = run.splits.batches(run.splits.calibration), run.config.calibration
    # Checks and groups are of one stream from its beginning: there is nothing to go on from.
    return lens.run(
        run.network,
        batches,
        progress=lambda done, _: run.advance(done, len(batches)),
        until=None if given.until is None else Settled(**given.until.model_dump()),
        standard_errors=given.standard_errors,
        **_initial(lens, run.weights["initial"]),
    )


def _initial(lens: CompositeLens, weights: Any) -> dict[str, Any]:
    return {"initial_weights": weights} if wants_initial_weights(lens) else {}


def _of_one_stream(run: Run) -> list[str]:
    """Return the settings that are set and need all batches in one process."""
    given = run.config.calibration
    return [name for name in _OF_ONE_STREAM if getattr(given, name) not in (None, False)]


def _is_shared(run: Run) -> bool:
    """Return whether several processes share the stream, so that their statistics are merged."""
    return run.ranks.count > 1 or run.shard is not None or bool(run.shards)


def _check_alone(run: Run) -> None:
    for name in _of_one_stream(run) if _is_shared(run) else ():
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


def _left_behind(run: Run) -> list[Path]:
    """The files of this process alone, one for each step, that an unfinished run left."""
    path = _unfinished_path(run)
    return sorted(path.parent.glob(f"{path.stem}.*"))


def _unfinished(run: Run) -> list[Path]:
    return sorted(run.folder.root.glob(_UNFINISHED.format("*", "*")))


def _check_unfinished(run: Run, code: tuple[str, ...]) -> None:
    """Raise MergeError, before anything is written, for statistics of something else."""
    about, mine = _about(run, code), _left_behind(run)
    for path in _unfinished(run):
        share = Aggregator.facts(path)["share"]
        if not share.endswith(f"/{run.share.count}"):
            raise MergeError(
                f"{path.name!r} in {str(run.folder.root)!r} is share {share} of an unfinished run,"
                f" and this run would go on with shares of {run.share.count}; expected as many"
                " processes as before, or a run without --resume"
            )
    for path in mine:
        check_same(f"{path.name!r} of the unfinished run", Aggregator.facts(path), about)


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
