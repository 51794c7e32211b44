"""Shards and ranks keep to a memory budget, and give what one process without one gives."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from nodelens import Aggregator, LensResult
from nodelens.errors import ConfigError, InvalidValueError, MergeError
from nodelens.experiments import GeneralAlignmentExperiment, read_shards
from nodelens.experiments.planning import plan_of
from nodelens.stream import Stream
from nodelens.testing.trial import assert_close

sys.path.insert(0, str(Path(__file__).parent))
from processes import torchrun

pytestmark = pytest.mark.xdist_group("many processes")

SMALL = (
    "lenses=[average_redundancy, delta_alignment, activation_outlier_index]",
    "dataset.batch_size=100",
    "calibration.rows=450",
    ("sensitivity", None),
)
TIGHT = "calibration.memory_budget=250 kB"
STATES = "results/state.pass-*-of-*.safetensors"


class Short(GeneralAlignmentExperiment):
    """Only what comes up to the scores."""

    def stages(self):
        return list(super().stages())[:3]


@pytest.fixture(scope="module")
def alone(tiny, tmp_path_factory) -> Path:
    """A run of one process without a budget."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    Short(tiny(folder, *SMALL)).run(progress=False)
    return folder


@pytest.fixture(scope="module")
def shards(tiny, tmp_path_factory) -> list[Path]:
    """Seven shards of five batches, the last two without any, each in several passes."""
    config = tiny(tmp_path_factory.mktemp("shards") / "run", *SMALL, TIGHT)
    return [Short(config).run(progress=False, shard=f"{i}/7").directory for i in range(1, 8)]


def same(folder: Path, other: Path) -> None:
    mine, theirs = (LensResult.load(each / "results/scores") for each in (folder, other))
    assert mine.rows == theirs.rows and list(mine) == list(theirs) and mine.notes == theirs.notes
    assert mine.units == theirs.units and mine.params == theirs.params
    assert_close(mine, theirs, 1e-10)


@pytest.mark.slow
def test_merged_shards_in_passes_give_what_one_process_gives(alone, shards, tiny, tmp_path):
    states = [sorted(shard.glob(STATES)) for shard in shards]
    assert {len(found) for found in states} == {len(states[0])} and len(states[0]) > 1
    assert [Aggregator.facts(found[0])["share"] for found in states] == [
        f"{i}/7" for i in range(1, 8)
    ]
    assert not any((shard / "results/state.safetensors").exists() for shard in shards)
    Short(tiny(tmp_path / "run", *SMALL, TIGHT)).merge(shards[::-1], progress=False)
    same(tmp_path / "run", alone)
    assert not list((tmp_path / "run").glob("checkpoints/measure*"))


def test_shards_of_blocks_of_channels_are_merged_too(tiny, tmp_path):
    wide = (*SMALL[1:], "lenses=[average_redundancy]", "model.options.hidden=[60]")
    plan = plan_of(tiny(tmp_path, *wide, "calibration.memory_budget=250 kB"))
    assert any(read.block for read in plan.reads)
    config = tiny(tmp_path / "run", *wide, "calibration.memory_budget=250 kB")
    halves = [Short(config).run(progress=False, shard=f"{i}/2").directory for i in (1, 2)]
    Short(config).merge(halves, progress=False)
    Short(tiny(tmp_path / "one", *wide)).run(progress=False)
    mine, theirs = (LensResult.load(tmp_path / f"{n}/results/scores") for n in ("run", "one"))
    # Products of other shapes are rounded otherwise in float32.
    assert_close(mine, theirs, 1e-5)
    assert mine.rows == theirs.rows and mine.notes == theirs.notes


def test_an_interrupted_shard_goes_on_in_the_pass_it_was_in(alone, tiny, tmp_path, monkeypatch):
    config, one, done = tiny(tmp_path / "run", *SMALL, TIGHT), Stream._one, []

    def counted(self, given):
        done.append(1)
        if len(done) == 5:
            raise InvalidValueError("planted")
        return one(self, given)

    # A half has 3 batches and the other 2: the fifth is in the second pass.
    monkeypatch.setattr(Stream, "_one", counted)
    with pytest.raises(InvalidValueError, match=r"shard 1/2: .*planted"):
        Short(config).run(progress=False, shard="1/2")
    left = sorted((tmp_path / "run-shard-1-of-2/checkpoints").glob("measure*"))
    assert [Aggregator.load(path).batches for path in left] == [3, 1]
    with pytest.raises(MergeError, match=r"pass-1-of-\d.*calibration\.rows was 450, is 350"):
        other = tiny(tmp_path / "run", *SMALL, TIGHT, "calibration.rows=350")
        Short(other).run(progress=False, shard="1/2", resume=True)
    passes, before = int(left[0].stem.rpartition("-")[2]), len(done)
    halves = [Short(config).run(progress=False, shard=f"{i}/2", resume=True) for i in (1, 2)]
    assert len(done) - before == (passes * 3 - 4) + passes * 2
    Short(config).merge([half.directory for half in halves], progress=False)
    same(tmp_path / "run", alone)


@pytest.mark.slow
def test_shards_of_other_budgets_or_without_a_pass_are_refused(shards, tiny, tmp_path):
    other = tiny(tmp_path / "run", *SMALL, "calibration.memory_budget=1 GiB")
    foreign = Short(other).run(progress=False, shard="1/7").directory
    with pytest.raises(MergeError, match=r"config\.calibration\.memory_budget was .*, is '250 kB'"):
        read_shards([foreign, *shards[1:]])
    half = Path(shutil.copytree(shards[0], tmp_path / "half"))
    sorted(half.glob(STATES))[1].unlink()
    with pytest.raises(MergeError, match=r"shard 1/7 .* has not finished"):
        read_shards([half, *shards[1:]])


@pytest.mark.slow
def test_shards_whose_passes_were_planned_otherwise_are_refused(shards, tiny, tmp_path):
    copies = [Path(shutil.copytree(shard, tmp_path / shard.name)) for shard in shards]
    told = json.loads((copies[3] / "provenance.json").read_text())
    files = told["stages"]["measure"]["files"]
    first = next(iter(files))
    (copies[3] / first).rename(copies[3] / "results/state.safetensors")
    told["stages"]["measure"]["files"] = {"results/state.safetensors": files[first]}
    (copies[3] / "provenance.json").write_text(json.dumps(told))
    with pytest.raises(MergeError, match=r"shard 4/7 .*pass-1-of-.*planned on another kind"):
        Short(tiny(tmp_path / "run", *SMALL, TIGHT)).merge(copies, progress=False)


def test_a_budget_no_plan_keeps_to_is_told_before_anything_is_trained(tiny, tmp_path):
    given = (*SMALL[1:], "lenses=[average_redundancy]")
    least = (
        r"calibration\.memory_budget: .*'average_redundancy' on layer .* at least .*\((\d+) bytes"
    )
    amounts = {}
    for shard in (None, "1/2"):
        with pytest.raises(ConfigError, match=least) as caught:
            config = tiny(tmp_path / "run", *given, "calibration.memory_budget=1 kB")
            Short(config).run(progress=False, shard=shard)
        amounts[shard] = int(re.search(least, str(caught.value))[1])
    assert not list(tmp_path.rglob("trained*")) and amounts["1/2"] > amounts[None]


@pytest.mark.slow
def test_ranks_in_passes_give_what_one_process_gives(alone, tmp_path):
    file = shutil.copy(alone / "experiment_config.yaml", tmp_path / "run.yaml")
    done = torchrun("-m", "nodelens", "run", file, TIGHT, "--output-dir", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    same(tmp_path / "two", alone)
    assert not list((tmp_path / "two").glob("checkpoints/measure*"))
