"""Shards: run directories that each hold the statistics of a share, and putting them together."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodelens.aggregator import Aggregator
from nodelens.checkpoint import check_same, differences
from nodelens.data import Share
from nodelens.errors import InvalidValueError, MergeError, OutputError
from nodelens.experiments.artifacts import CONFIG, STATE
from nodelens.experiments.folder import PROVENANCE, RunFolder
from nodelens.experiments.record import Record
from nodelens.plan import Step

__all__ = ["Shard", "adopt", "merged", "read_shards", "save_share", "shard_directory"]

_STARTED = (CONFIG, PROVENANCE)


@dataclass(frozen=True)
class Shard:
    """A finished shard: its run directory, which share it measured, and of what."""

    folder: RunFolder
    share: Share
    about: dict[str, Any]
    states: tuple[str, ...]
    """The names of the files of its statistics, one for each pass over the share."""

    def __str__(self) -> str:
        return f"shard {self.share} ({str(self.folder.root)!r})"

    @property
    def config(self) -> Path:
        """Return the path of the configuration that was run."""
        return self.folder.path(CONFIG)


def shard_directory(directory: str, share: Share | None) -> str:
    """Return the run directory of a share of the run in `directory`.

    >>> shard_directory("outputs/first", Share.parse("2/3"))
    'outputs/first-shard-2-of-3'
    """
    if share is None:
        return directory
    return f"{directory.rstrip('/')}-shard-{share.index + 1}-of-{share.count}"


def read_shards(directories: Sequence[str | Path]) -> list[Shard]:
    """Return the shards in `directories` in the order of their shares, all of them there once.

    Raises MergeError for one that is missing, given twice, unfinished, or of another run.
    """
    if not directories:
        raise InvalidValueError("no shard was given, expected the run directories of all shards")
    shards = sorted((_read(directory) for directory in directories), key=lambda s: s.share.index)
    _check_complete(shards)
    for shard in shards[1:]:
        problems = differences(shards[0].about, shard.about)
        if problems:
            raise MergeError(
                f"{shard} and {shards[0]} are not of one run: {'; '.join(problems)}; expected"
                " the same configuration, data, code and weights (train once, then give every"
                " shard that checkpoint)"
            )
    return shards


def save_share(folder: RunFolder, step: Step, aggregator: Aggregator) -> str:
    """Write what a step measured of a share, and return the name of the file."""
    path = step.file(folder.path(STATE))
    aggregator.save(path)
    return path.relative_to(folder.root.resolve()).as_posix()


def merged(shards: Sequence[Shard], step: Step, about: dict[str, Any]) -> Aggregator:
    """Return the statistics of one step of all shards, merged in the order of their shares."""
    aggregator = step.lens.aggregator()
    for shard in shards:
        check_same(str(shard), shard.about, about)
        path = step.file(shard.folder.path(STATE))
        try:
            if path.name not in shard.states:
                raise MergeError(
                    f"{path.name!r} is not there, but {', '.join(shard.states)}: its passes were"
                    " planned on another kind of device; expected the same for all shards and here"
                )
            aggregator.merge(Aggregator.load(path, step.lens))
        except MergeError as error:
            error.within(str(shard))
            raise
    return aggregator


def adopt(shard: Shard, record: Record, stages: Sequence[str]) -> None:
    """Take over what a shard's `stages` wrote: its network above all, which is not trained again.

    Raises OutputError for a file that is gone.
    """
    theirs = shard.folder.read_json(PROVENANCE)["stages"]
    for stage in stages:
        for name in theirs[stage]["files"]:
            _copy(shard.folder.path(name), record.folder.path(name))
        record.data["stages"][stage] = theirs[stage]


def _copy(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    except OSError as failure:
        raise OutputError(f"cannot copy {str(source)!r}: {failure.strerror}") from failure


def _read(directory: str | Path) -> Shard:
    folder = RunFolder(directory)
    if not all(folder.has(name) for name in _STARTED):
        raise MergeError(f"{str(directory)!r} is not the run directory of a shard")
    told = folder.read_json(PROVENANCE)
    share, written = told.get("shard"), told["stages"].get("measure", {}).get("files", {})
    if share is None:
        raise MergeError(f"{str(directory)!r} is a whole run, expected shards (run --shard i/n)")
    if not written or not all(folder.has(name) for name in written):
        raise MergeError(
            f"shard {share} ({str(directory)!r}) has not finished: run it again with"
            f" --shard {share} --resume"
        )
    about = Aggregator.facts(folder.path(next(iter(written))))
    states = tuple(Path(name).name for name in written)
    return Shard(folder, Share.parse(about.pop("share")), about, states)


def _check_complete(shards: Sequence[Shard]) -> None:
    count = shards[0].share.count
    for shard in shards:
        if shard.share.count != count:
            raise MergeError(f"{shards[0]} and {shard} are of different divisions of the stream")
    given = Counter(shard.share for shard in shards)
    for share, times in given.items():
        if times > 1:
            twice = ", ".join(repr(str(s.folder.root)) for s in shards if s.share == share)
            raise MergeError(f"shard {share} is given {times} times: {twice}; expected once")
    missing = [str(share) for i in range(count) if (share := Share(i, count)) not in given]
    if missing:
        raise MergeError(
            f"{len(shards)} of {count} shards are given, {', '.join(missing)} missing; expected all"
        )
