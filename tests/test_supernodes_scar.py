"""The supernode study: blocks of articles, intervals, verdicts, and a bundle that tells changes."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from nodelens.configs.config_loader import load_config
from nodelens.data.text import Document
from nodelens.errors import InvalidValueError, OutputError, TooFewRowsError
from projects.supernodes_scar import bundle as bundle_module
from projects.supernodes_scar.__main__ import _options
from projects.supernodes_scar.bundle import FILES, prepare, verify
from projects.supernodes_scar.claims import _Ratio
from projects.supernodes_scar.conditions import alike_blocks, halos_and_matches
from projects.supernodes_scar.losses import known_losses
from projects.supernodes_scar.page import _lost
from projects.supernodes_scar.run import _claim
from projects.supernodes_scar.scores import Scores
from projects.supernodes_scar.study import Settings, article_blocks
from projects.supernodes_scar.tables import Losses, perplexity_table


class Letters:
    """A tokenizer of letters, whose end of text is 0."""

    eos_token_id = 0

    def __call__(self, text, /, **_):
        return {"input_ids": [ord(letter) for letter in text]}


def test_blocks_are_taken_from_the_articles_by_turns():
    articles = [Document("one", "abcdef"), Document("two", "ghi"), Document("three", "j")]
    blocks = article_blocks(articles, Letters(), 2, 5)
    words = ["".join(chr(t) if t else "." for t in block) for block in blocks.tolist()]
    assert words == ["ab", "gh", "j.", "cd", "i."]
    with pytest.raises(TooFewRowsError, match="hold 6 blocks of 2, expected 7"):
        article_blocks(articles, Letters(), 2, 7)


def losses(**given):
    rows = [
        {"name": name, "group": "half", "seed": seed, "silenced": 1, "losses": each}
        for name, seeds in given.items()
        for seed, each in enumerate(seeds)
    ]
    return Losses(pd.DataFrame(rows), draws=500)


def test_what_makes_a_block_hard_does_not_count_in_a_comparison():
    hard = np.array([1.0, 2.0, 3.0, 4.0])
    found = losses(dense=[hard], a=[hard + 1], b=[hard + 1.5])
    ratio = found.ratio("b", "a")
    assert [ratio.value, ratio.low, ratio.high] == pytest.approx([np.exp(0.5)] * 3)
    alone = found.perplexity("a")
    assert alone.value == pytest.approx(np.exp(3.5)) and alone.low < alone.value < alone.high


def test_seeds_widen_the_interval_and_are_told_apart():
    flat = np.ones(4)
    found = losses(dense=[flat], random=[flat, flat + 1, flat + 2])
    spread = found.perplexity("random")
    assert spread.value == pytest.approx(np.exp(2)) and spread.low < 4 < 12 < spread.high
    row = perplexity_table(found).set_index("condition").loc["random"]
    assert row["seeds"] == 3
    assert row["lowest seed"] == pytest.approx(np.e)
    assert row["highest seed"] == pytest.approx(np.exp(3))


@pytest.mark.parametrize(
    ("gap", "options", "verdict"),
    [
        (-1.0, {}, "holds"),
        (-1.0, {"far": 0.5}, "holds"),
        (-0.1, {"far": 0.5}, "holds in direction, not in size"),
        (1.0, {}, "does not hold: the opposite"),
        (0.01, {"expected": "like"}, "holds: within 10%"),
        (0.5, {"expected": "like"}, "does not hold"),
    ],
)
def test_verdicts_follow_from_the_interval(gap, options, verdict):
    block = np.array([1.0, 2.0])
    found = losses(dense=[block], a=[block + gap], b=[block])
    assert _Ratio("text", "asked here", "a", "b", **options).judged(found)["verdict"] == verdict


def test_an_interval_around_one_decides_nothing():
    found = losses(dense=[np.zeros(4)], a=[np.array([-1.0, 1, -1, 1])], b=[np.zeros(4)])
    for options in ({}, {"expected": "like"}):
        judged = _Ratio("text", "asked here", "a", "b", **options).judged(found)
        assert judged["verdict"] == "not decided"


def test_a_halo_of_units_like_none_outside_is_told():
    down = torch.ones(10, 20)
    down[0, :3] = 50.0  # the core, unit 0, and two that write where it does
    proxy = torch.linspace(2, 1, 20)
    even, one_stands_out = torch.ones(20), torch.ones(20)
    one_stands_out[1] = 9.0
    whole = {
        "loss proxy": {"a": proxy, "b": proxy},
        "activation power": {"a": even, "b": one_stands_out},
    }
    scores = Scores(whole, [], 0.05, {"a": down, "b": down})
    halos, others = halos_and_matches(scores)
    assert set(halos["a"].tolist()) <= {1, 2} and not {0, 1, 2} & set(others["a"].tolist())
    assert alike_blocks(scores) == ["a"]


def test_supernodes_that_another_score_would_remove_are_counted():
    units = {"loss proxy": [4, 3, 2, 1], "Wanda": [1, 4, 3, 2], "activation power": [9, 2, 1, 0]}
    tables = {"concentration": pd.DataFrame({"layer": ["a"], "units": [4], "core": [2]})}
    found = _lost(pd.DataFrame({"layer": "a", **units}), tables)
    assert found == {"cores": 2, "lost": 1, "lost_power": 0}


def test_a_line_that_was_cut_off_is_measured_again(tmp_path):
    path = tmp_path / "losses.jsonl"
    path.write_text('{"name": "dense", "losses": [1.0]}\n{"name": "ha')
    assert list(known_losses(path)["name"]) == ["dense"]
    assert path.read_text().endswith("]}\n")


def test_a_folder_of_other_settings_is_refused(tmp_path):
    _claim(tmp_path, Settings(tokens=512))
    _claim(tmp_path, Settings(tokens=512))
    with pytest.raises(InvalidValueError, match="'tokens': 512"):
        _claim(tmp_path, Settings(tokens=1024))


def test_no_folder_of_a_model_is_told():
    assert Settings(model="/home/me/llama").plain()["model"] == "llama"


@pytest.fixture
def bundle(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in FILES:
        (run / name).write_text("{}\n")
    return prepare(run, tmp_path / "bundle")


def test_a_bundle_is_verified_as_it_was_prepared(bundle):
    told = json.loads((bundle / "manifest.json").read_text())["sha256"]
    assert {*FILES, "README.md"} == told.keys()
    assert verify(bundle) == []


def test_every_change_of_a_bundle_is_told(bundle):
    (bundle / "claims.csv").write_text("x\n")
    (bundle / "overlap.csv").unlink()
    (bundle / "model.safetensors").write_bytes(b"")
    problems = " ".join(verify(bundle))
    assert "'claims.csv' has another checksum" in problems
    assert "'overlap.csv' is missing" in problems
    assert "'model.safetensors' is not in the manifest" in problems


def test_weights_are_refused_even_by_a_manifest_that_has_them(bundle):
    (bundle / "model.SafeTensors").write_bytes(b"")
    told = json.loads((bundle / "manifest.json").read_text())
    told["sha256"]["model.SafeTensors"] = hashlib.sha256(b"").hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(told))
    assert verify(bundle) == ["'model.SafeTensors' is of a kind that holds weights"]
    (bundle / "manifest.json").write_text('{"sha256": []}')
    with pytest.raises(OutputError, match="no manifest that can be read"):
        verify(bundle)


def test_the_configurations_of_the_project_are_ones():
    found = sorted(Path(bundle_module.__file__).parent.glob("configs/*.yaml"))
    assert [load_config(path).experiment_type for path in found] == ["llm_alignment"] * 2


def test_the_commands_of_the_readme_are_ones(monkeypatch):
    text = (Path(bundle_module.__file__).parent / "README.md").read_text("utf-8")
    commands = re.findall(r"^python -m projects\.supernodes_scar([^#\n]*)", text, re.MULTILINE)
    assert len(commands) == 5
    found = []
    for command in commands:
        monkeypatch.setattr(sys, "argv", ["supernodes_scar", *command.split()])
        found.append(_options())
    assert [options.command for options in found] == ["run", "page", "prepare", "verify", "run"]
    assert (found[-1].blocks, found[-1].tokens, found[-1].seeds) == (2, 512, 1)
    tables = set(re.findall(r"`(\w+\.(?:csv|jsonl))`", text))
    assert tables and tables <= {*FILES}, "what notes lead to is in the bundle"


@pytest.mark.parametrize(
    "path",
    [
        "/home/me/x",
        "C:\\\\Users",
        r"in C:\Users\me",
        '"/root/.cache"',
        "file:///n/lab/me",
        "(/scratch/me)",
        "~/models",
    ],
)
def test_a_path_of_a_machine_is_not_passed_on(tmp_path, path):
    for name in FILES:
        (tmp_path / name).write_text("{}\n")
    (tmp_path / "about.json").write_text(path)
    with pytest.raises(InvalidValueError, match=r"about\.json.*path of a machine"):
        prepare(tmp_path, tmp_path / "bundle")


def test_an_unfinished_run_and_a_used_folder_are_refused(tmp_path, bundle):
    with pytest.raises(OutputError, match=r"no 'about\.json'"):
        prepare(tmp_path / "nothing", tmp_path / "other")
    with pytest.raises(InvalidValueError, match="expected a new folder"):
        prepare(tmp_path / "run", bundle)
    with pytest.raises(OutputError, match="no manifest"):
        verify(tmp_path)
