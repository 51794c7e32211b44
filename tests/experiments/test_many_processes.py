"""Ranks and shards measure what one process measures, and end together when one of them fails."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from nodelens import Aggregator, LensResult
from nodelens.cli import app
from nodelens.data import Share
from nodelens.errors import ConfigError, InvalidValueError, MergeError
from nodelens.experiments import GeneralAlignmentExperiment, read_shards
from nodelens.statistics.distributed import Ranks
from nodelens.testing.trial import assert_close

sys.path.insert(0, str(Path(__file__).parent))
from processes import script, torchrun, two_ranks

pytestmark = pytest.mark.xdist_group("many processes")

LENSES = (
    "lenses=[activation_sparsity, average_redundancy, delta_alignment, taylor_saliency,"
    " activation_outlier_index]"
)
SMALL = (LENSES, "dataset.batch_size=100", "calibration.rows=850", ("sensitivity", None))
"""Nine batches, the last of half the size: an odd number."""

RANKS = """
    import sys
    from nodelens.configs.config_loader import load_config
    from nodelens.experiments import GeneralAlignmentExperiment
    from nodelens.experiments import stage

    class Short(GeneralAlignmentExperiment):
        def stages(self):
            return list(super().stages())[:3]

    for rows in (850, 60):
        named = [("calibration.rows", rows), ("output.directory", f"{sys.argv[2]}/{rows}")]
        results = Short(load_config(sys.argv[1], named)).run(progress=False)
        results.scores  # on every rank the run is finished
"""


class Short(GeneralAlignmentExperiment):
    """Only what comes up to the scores."""

    def stages(self):
        return list(super().stages())[:3]


@pytest.fixture(scope="module")
def alone(tiny, tmp_path_factory) -> Path:
    """A run of one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    Short(tiny(folder, *SMALL)).run(progress=False)
    return folder


@pytest.fixture(scope="module")
def shards(tiny, tmp_path_factory) -> list[Path]:
    """Three finished shards of the same run; tests that change one take a copy."""
    config = tiny(tmp_path_factory.mktemp("shards") / "run", *SMALL)
    done = [GeneralAlignmentExperiment(config).run(progress=False, shard=f"{i}/3") for i in (3, 1)]
    done.append(GeneralAlignmentExperiment(config).run(progress=False, shard="2/3"))
    return [results.directory for results in done]


@pytest.fixture
def file(alone, tmp_path) -> Path:
    """The configuration of the run of one process, as a file."""
    return shutil.copy(alone / "experiment_config.yaml", tmp_path / "run.yaml")


def scores(folder: Path) -> LensResult:
    return LensResult.load(folder / "results/scores")


def same(folder: Path, other: Path) -> None:
    mine, theirs = scores(folder), scores(other)
    assert mine.rows == theirs.rows and list(mine) == list(theirs)
    assert_close(mine, theirs, 1e-10)


@pytest.mark.parametrize("count", [1, 2, 3, 9, 12])
def test_shares_hold_every_batch_once(count):
    shares = [Share(i, count) for i in range(count)]
    parts = [list(share.of(range(9))) for share in shares]
    assert sorted(batch for part in parts for batch in part) == list(range(9))
    assert [len(share.of(range(9))) for share in shares] == [len(part) for part in parts]
    assert [list(share.of(iter(range(9)))) for share in shares] == parts


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/2", ""])
def test_a_share_that_does_not_exist_is_refused(text):
    with pytest.raises(InvalidValueError, match="share"):
        Share.parse(text)


@pytest.mark.slow
def test_the_command_under_torchrun_gives_what_one_process_gives(alone, file, tmp_path):
    folder = tmp_path / "two"
    done = torchrun("-m", "nodelens", "run", file, "--output-dir", folder)
    assert done.returncode == 0, done.stderr
    same(folder, alone)
    assert done.stdout.count("Report: ") == 1 and "5 scores of 21 channels" in done.stdout
    told = json.loads((folder / "provenance.json").read_text())
    assert (told["status"], told["processes"]) == ("finished", 2)
    assert not list(folder.glob("checkpoints/measure*"))


@pytest.mark.slow
def test_an_odd_number_of_batches_and_a_rank_without_any(alone, tiny, file, tmp_path):
    path = tmp_path / "ranks.py"
    path.write_text("\n".join(line[4:] for line in RANKS.splitlines()))
    done = torchrun(path, file, tmp_path)
    assert done.returncode == 0, done.stderr
    same(tmp_path / "850", alone)
    given = (*SMALL[:2], "calibration.rows=60", SMALL[3])
    Short(tiny(tmp_path / "one", *given)).run(progress=False)
    same(tmp_path / "60", tmp_path / "one")


@pytest.mark.slow
def test_a_failing_rank_ends_all_under_torchrun_and_all_go_on(tiny, file, tmp_path):
    planted, started = script(tmp_path, pause=1.0, fails_measuring="1"), time.monotonic()
    done = torchrun(planted, "run", file, "dataset.batch_size=4", "--output-dir", tmp_path / "two")
    assert done.returncode != 0
    assert "rank 1 of 2: lens 'composite_lens', batch 1: planted" in done.stderr
    # Rank 0 alone would have taken 107 seconds.
    assert time.monotonic() - started < 60
    assert not (tmp_path / "two/results/scores").exists()
    for share in ("1-of-2", "2-of-2"):
        done = Aggregator.load(tmp_path / f"two/checkpoints/measure-{share}.safetensors").batches
        assert 1 <= done < 30
    words = ["run", file, "dataset.batch_size=4", "--output-dir", tmp_path / "two", "--resume"]
    assert torchrun("-m", "nodelens", *words).returncode == 0
    Short(tiny(tmp_path / "one", *SMALL, "dataset.batch_size=4")).run(progress=False)
    same(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"fails_measuring": "1"}, ["rank 1 of 2: lens 'composite_lens', batch 1: planted"] * 2),
        pytest.param(
            {"fails_measuring": "0"},
            ["rank 0 of 2: lens 'composite_lens', batch 1: planted"] * 2,
        ),
        pytest.param(
            {"dies": "1"},
            ["rank 0 of 2: another process of the run went away", ""],
        ),
        # It keeps what the ranks tell each other.
        pytest.param(
            {"dies": "0"},
            ["", "rank 1 of 2: another process of the run went away"],
        ),
        pytest.param(
            {"fails_training": "1"},
            ["ZeroDivisionError: planted", "rank 0 of 2: ZeroDivisionError: planted"],
        ),
    ],
)
def test_a_failing_rank_ends_the_others_whoever_started_them(file, tmp_path, fault, said):
    planted = script(tmp_path, pause=0.0 if fault == {"dies": "1"} else 0.3, **fault)
    words = [planted, "run", file, "dataset.batch_size=8", "--output-dir", tmp_path / "two"]
    ended = two_ranks(*words)
    for done, expected in zip(ended, said, strict=True):
        assert done.returncode != 0
        assert expected in done.stderr, done.stderr
    # Of 54 batches a share: the other rank did not go through its own first.
    for state in (tmp_path / "two").glob("checkpoints/measure-*"):
        assert Aggregator.load(state).batches < 54 / 2 or "dies" in fault


@pytest.mark.slow
def test_shards_merged_in_any_order_give_what_one_process_gives(alone, shards, tiny, tmp_path):
    folder = tmp_path / "merged"
    config = tiny(folder, *SMALL)
    results = GeneralAlignmentExperiment(config).merge(shards, progress=False)
    same(folder, alone)
    assert results.report.exists()
    for name in ("checkpoints/trained.safetensors", "analysis/findings.json"):
        assert (folder / name).exists(), name
    assert json.loads((folder / "provenance.json").read_text())["processes"] == 3
    again = CliRunner().invoke(
        app, ["merge", *map(str, shards), f"--output-dir={folder}", "--json"]
    )
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["report"] == str(folder / "report.html")
    same(folder, alone)


def test_a_merged_run_is_resumed_like_any_other(shards, tiny, tmp_path):
    config = tiny(tmp_path / "merged", *SMALL)
    Short(config).merge(shards, progress=False)
    before = (tmp_path / "merged/results/scores.csv").stat().st_mtime_ns
    Short(config).run(progress=False, resume=True)
    assert (tmp_path / "merged/results/scores.csv").stat().st_mtime_ns == before


def test_a_shard_holds_the_statistics_of_its_share(shards):
    batches = [Aggregator.load(folder / "results/state.safetensors").batches for folder in shards]
    assert batches == [3, 3, 3]
    assert [folder.name for folder in shards] == [f"run-shard-{i}-of-3" for i in (3, 1, 2)]
    assert not (shards[0] / "results/scores").exists()


def test_more_shards_than_batches_leave_some_empty(tiny, tmp_path):
    config = tiny(tmp_path / "run", "calibration.rows=60", "dataset.batch_size=60", *SMALL[3:])
    folders = [Short(config).run(progress=False, shard=f"{i}/2").directory for i in (1, 2)]
    assert Aggregator.load(folders[1] / "results/state.safetensors").batches == 0
    Short(config).merge(folders, progress=False)
    Short(tiny(tmp_path / "one", "calibration.rows=60", *SMALL[3:])).run(progress=False)
    same(tmp_path / "run", tmp_path / "one")


def test_a_missing_or_repeated_shard_is_refused(shards, tmp_path):
    with pytest.raises(MergeError, match="2 of 3 shards are given, 2/3 missing; expected all"):
        read_shards(shards[:2])
    with pytest.raises(MergeError, match=r"shard 1/3 is given 2 times: '.*', '.*'; expected once"):
        read_shards([*shards, shards[1]])
    with pytest.raises(InvalidValueError, match="no shard was given"):
        read_shards([])
    done = CliRunner().invoke(app, ["merge", str(shards[0])])
    assert done.exit_code == 2
    assert done.stderr.startswith("error: 1 of 3 shards are given, 1/3, 2/3 missing")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("calibration.rows=900", r"config\.calibration\.rows was 850, is 900"),
        ("experiment.seed=1", r"config\.experiment\.seed was 0, is 1; data was"),
        ("model.options.hidden=[6, 6]", r"model\.layers was .*config\.model\.options\.hidden was"),
        ("lenses=[weight_magnitude]", r"config\.lenses was"),
    ],
)
def test_a_shard_of_another_run_is_refused(shards, tiny, tmp_path, override, said):
    config = tiny(tmp_path / "run", *SMALL, override)
    foreign = Short(config).run(progress=False, shard="2/3").directory
    with pytest.raises(MergeError, match=f"shard 2/3 .* are not of one run: .*{said}"):
        read_shards([*shards[:2], foreign])


def test_a_shard_of_other_weights_is_refused(shards, alone, tiny, tmp_path):
    weights = {"model.checkpoint": alone / "checkpoints/initial.safetensors"}
    weights["model.initial_checkpoint"] = weights["model.checkpoint"]
    given = [(key, str(path)) for key, path in weights.items()]
    foreign = Short(tiny(tmp_path / "run", *SMALL, *given)).run(progress=False, shard="2/3")
    with pytest.raises(MergeError, match=r"not of one run: .*model\.weights was .*; expected"):
        read_shards([*shards[:2], foreign.directory])


def test_a_shard_of_another_division_or_none_is_refused(shards, alone, tiny, tmp_path):
    half = Short(tiny(tmp_path / "run", *SMALL)).run(progress=False, shard="2/2").directory
    with pytest.raises(MergeError, match="are of different divisions of the stream"):
        read_shards([*shards[:2], half])
    with pytest.raises(MergeError, match="is a whole run, expected shards"):
        read_shards([alone])
    with pytest.raises(MergeError, match="is not the run directory of a shard"):
        read_shards([tmp_path])
    (half / "results/state.safetensors").unlink()
    with pytest.raises(MergeError, match=r"shard 2/2 .* has not finished: run it again with --sha"):
        read_shards([half])


def test_a_network_that_changed_since_is_not_trained_again(shards, tiny, tmp_path):
    copies = [Path(shutil.copytree(shard, tmp_path / shard.name)) for shard in shards]
    (copies[1] / "checkpoints/trained.safetensors").write_bytes(b"")
    with pytest.raises(MergeError, match=r"shard 1/3 .*the files of its stage 'network'"):
        Short(tiny(tmp_path / "run", *SMALL)).merge(copies, progress=False)


def test_a_merge_of_another_configuration_is_refused(shards, tiny, tmp_path):
    other = tiny(tmp_path / "run", *SMALL, "calibration.rows=800")
    with pytest.raises(MergeError):
        Short(other).merge(shards, progress=False)


def test_shards_and_ranks_do_not_mix(tiny, tmp_path, monkeypatch):
    from contextlib import nullcontext

    from nodelens.experiments import experiment

    monkeypatch.setattr(experiment, "joined", lambda: nullcontext(Ranks(0, 2)))
    with pytest.raises(InvalidValueError, match="shard 1/2 on 2 ranks: expected shards, or ranks"):
        Short(tiny(tmp_path / "run")).run(shard="1/2")


def test_saving_every_so_often_is_checked(tiny, tmp_path):
    with pytest.raises(ConfigError, match="save_every"):
        tiny(tmp_path / "run", "output.save_every=0")


def test_a_loaded_state_goes_where_the_layer_is():
    from nodelens import Lens
    from nodelens.aggregator import _beside
    from nodelens.statistics import Moments

    on_cpu = Moments(2, torch.ones(3), torch.ones(3))
    elsewhere = Moments(2, torch.ones(3, device="meta"), torch.ones(3, device="meta"))
    assert _beside(on_cpu, elsewhere).mean.device.type == "meta"
    assert _beside(on_cpu, on_cpu) is on_cpu
    aggregator = Lens.from_name("activation_mean").aggregator()
    aggregator.update({"fc": {"x": elsewhere}})
    assert aggregator.statistics["fc"]["x"].mean.device.type == "meta"
