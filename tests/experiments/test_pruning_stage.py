"""Pruning as a stage: its rows against a plain loop, what chooses, is kept, is cut out."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from nodelens.configs.config_loader import parse_config
from nodelens.errors import ConfigError
from nodelens.experiments import (
    GeneralAlignmentExperiment,
    LLMAlignmentExperiment,
    Run,
    judging,
    pruned,
)
from nodelens.experiments.artifacts import RunResults
from nodelens.experiments.folder import RunFolder
from nodelens.experiments.networks import build_network
from nodelens.experiments.orders import orders
from nodelens.experiments.splits import load_splits
from nodelens.experiments.stages import pruning
from nodelens.experiments.stages.pruning import PruningStage, pruning_stages
from nodelens.pruning import get_pruning_strategy, load_shrunk
from tests.experiments.tiny_language_model import write_language_model

sys.path.insert(0, str(Path(__file__).parent))
from processes import start

ROOT = Path(__file__).parents[2]
# One worker, so that what is made for all tests is made once.
pytestmark = pytest.mark.xdist_group("pruning stage")

SECTION = "{strategies: [magnitude, wanda], amounts: [0.25, 0.5], random_seeds: [3, 4, 5]}"
TUNED = SECTION.replace("}", ", shrink: true, fine_tuning: {epochs: 1, batch_size: 256}}")
TABLE = "results/pruning.csv"


class Short(GeneralAlignmentExperiment):
    """What comes up to pruning."""

    def stages(self):
        return [s for s in super().stages() if s.name not in ("analysis", "figures", "report")]


def configure(tiny, folder: Path, section: str = SECTION, *overrides):
    given = [("sensitivity", None), "lenses=[weight_magnitude]", f"pruning={section}"]
    given.append("training.learning_rate=0.05")
    return tiny(folder, *given, *overrides)


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory) -> RunResults:
    """A finished run with fine-tuning and shrinking."""
    config = configure(tiny, tmp_path_factory.mktemp("pruned") / "run", TUNED)
    return Short(config).run(progress=False)


def rows(run: RunResults, **wanted) -> pd.DataFrame:
    table = run.pruning
    assert table is not None
    for name, value in wanted.items():
        table = table[table[name] == value]
    return table


def test_a_row_is_what_a_plain_network_without_these_units_does(run, tiny):
    config = configure(tiny, run.directory)
    splits = load_splits(config)
    network = build_network(config, splits)
    network.load_state_dict(run.folder.read_tensors("checkpoints/trained.safetensors"))
    x, y = splits.test.tensors
    with torch.no_grad():
        for layer in (network.fc1, network.fc2):
            gone = layer.weight.norm(dim=1).argsort()[: len(layer.weight) // 2]
            layer.weight[gone], layer.bias[gone] = 0, 0
        logits = network(x)
    (row,) = rows(run, strategy="magnitude", amount=0.5, split="test", tuned=False).itertuples()
    assert row.accuracy == pytest.approx(float((logits.argmax(1) == y).float().mean()), abs=1e-7)
    assert row.loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, y)), rel=1e-5)
    top = (logits.topk(5).indices == y[:, None]).any(1)
    assert row.top5 == pytest.approx(float(top.float().mean()), abs=1e-7)
    assert (row.silenced, row.channels, row.rows) == (3 + 2, 11, len(y))
    assert row.accuracy_low < row.accuracy < row.accuracy_high


def test_every_order_has_every_amount_and_chance_has_every_seed(run):
    tested = rows(run, split="test", tuned=False)
    assert list(tested["strategy"].value_counts().sort_index().items()) == [
        ("dense", 1),
        ("magnitude", 2),
        ("random", 6),
        ("wanda", 2),
    ]
    assert sorted(set(rows(run, mode="random")["seed"])) == [3, 4, 5]
    chosen = rows(run, mode="random", amount=0.5, tuned=False)
    assert chosen["loss"].nunique() == 3, "every seed draws channels of its own"
    told = json.loads((run.directory / "results/pruning.json").read_text())
    values = rows(run, mode="random", amount=0.5, tuned=False)["accuracy"]
    (chance,) = (e for e in told["random"] if e["amount"] == 0.5 and not e["tuned"])
    mean, reach = values.mean(), 4.302653 * values.std() / 3**0.5
    assert chance["accuracy"]["mean"] == pytest.approx(mean)
    assert chance["accuracy"]["high"] == pytest.approx(mean + reach, rel=1e-5)
    assert told["dense"]["accuracy"] == pytest.approx(run.network["test_accuracy"])
    assert "test rows choose nothing" in told["protocol"]


def test_what_is_cut_out_is_the_best_on_validation_rows_and_can_be_loaded(run, tiny):
    told = json.loads((run.directory / "results/pruning.json").read_text())["shrunk"]
    judged = rows(run, split="validation")
    assert set(judged["amount"]) == {0.5} and set(judged["mode"]) == {"low"}
    best = judged.loc[judged["loss"].idxmin()]
    assert (told["strategy"], told["tuned"]) == (best["strategy"], bool(best["tuned"]))
    config = configure(tiny, run.directory)
    small = load_shrunk(run.directory / "shrunk", build_network(config, load_splits(config)))
    assert (small.fc1.out_features, small.fc2.out_features) == (3, 3)
    masked = rows(
        run, strategy=told["strategy"], amount=0.5, split="test", tuned=told["tuned"]
    ).iloc[0]
    assert told["test"]["accuracy"] == pytest.approx(masked["accuracy"])
    report = json.loads((run.directory / "shrunk/report.json").read_text())
    assert report["parameters"]["after"] == sum(p.numel() for p in small.parameters())


def test_fine_tuning_is_seeded_and_reads_training_and_validation_rows(tiny, tmp_path, monkeypatch):
    section = SECTION.replace("}", ", fine_tuning: {learning_rate: 0.1}}")
    run = Run(configure(tiny, tmp_path, section, "experiment.seed=7"), RunFolder(tmp_path))
    run.network = build_network(run.config, run.splits)
    told: dict = {}

    def finetune(model, train, validation, **options):
        told.update(options, train=train.dataset, validation=list(validation))
        return SimpleNamespace(model=model)

    monkeypatch.setattr(pruned, "finetune", finetune)
    pruner = pruned.Pruner(run)
    mask = pruner.mask(orders(run.config)[0], 0.5)
    pruner.tuned(mask)
    assert told["train"] is run.splits.train is not run.splits.calibration
    labels = torch.cat([y for _, y in told["validation"]])
    assert torch.equal(labels, run.splits.validation.tensors[1])
    assert told["seed"] == 7 and told["learning_rate"] == 0.1
    assert told["masks"] is mask.keep


def test_means_are_of_the_site_that_is_silenced(tiny, tmp_path):
    run = Run(configure(tiny, tmp_path), RunFolder(tmp_path))
    run.network = build_network(run.config, run.splits)
    pruner = pruned.Pruner(run)
    found = pruner._mean({"fc1": "output", "fc2": "input"})
    x = pruner.model.module.flatten(run.splits.calibration.tensors[0])
    with torch.no_grad():
        out = run.network.fc1(x)
    torch.testing.assert_close(found["fc1"].float(), out.mean(0))
    torch.testing.assert_close(found["fc2"].float(), out.relu().mean(0))


@pytest.mark.slow
def test_fine_tuning_reads_training_and_validation_rows_alone(tiny, tmp_path, monkeypatch):
    seen: list[int] = []
    real = pruning.Pruner.tuned

    def told(self, mask):
        test = self.run.splits.test
        object.__setattr__(self.run.splits, "test", None)
        seen.append(1)
        try:
            return real(self, mask)
        finally:
            object.__setattr__(self.run.splits, "test", test)

    monkeypatch.setattr(pruning.Pruner, "tuned", told)
    section = SECTION.replace("}", ", fine_tuning: {learning_rate: 0.1}}")
    run = Short(configure(tiny, tmp_path / "run", section)).run(progress=False)
    assert len(seen) == 10
    table = run.pruning
    masked, tuned = table.iloc[1], table.iloc[2]
    assert tuned["loss"] < masked["loss"] and tuned["silenced"] == masked["silenced"]


def test_a_stage_that_was_stopped_keeps_its_rows(tiny, tmp_path, monkeypatch):
    config, straight = configure(tiny, tmp_path / "run"), configure(tiny, tmp_path / "straight")
    judged: list[str] = []
    real = pruning.judge

    def stopping(run, model, *given, **options):
        if len(judged) == 4:
            raise KeyboardInterrupt
        judged.append("")
        return real(run, model, *given, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pruning, "judge", stopping)
        Short(config).run(progress=False)
    assert not (tmp_path / "run" / TABLE).exists()
    judged.clear()
    monkeypatch.setattr(pruning, "judge", lambda *a, **k: judged.append("") or real(*a, **k))
    Short(config).run(progress=False, resume=True)
    assert len(judged) == 11 - 4
    assert not (tmp_path / "run/checkpoints/pruning.json").exists()
    Short(straight).run(progress=False)
    assert len(judged) == 11 - 4 + 11
    for name in (TABLE, "results/pruning.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


@pytest.mark.slow
def test_figures_that_are_gone_are_drawn_again_and_nothing_is_pruned(
    run, tiny, tmp_path, monkeypatch
):
    folder = Path(shutil.copytree(run.directory, tmp_path / "copy"))
    shown = run.provenance["stages"]["pruning"]["shown"]
    assert len([name for name in shown if name.endswith(".svg")]) >= 2
    for name in shown:
        (folder / name).unlink()
    monkeypatch.setattr(pruning, "judge", lambda *given, **options: 1 / 0)
    Short(configure(tiny, folder, TUNED)).run(progress=False, resume=True)
    for name in shown:
        assert (folder / name).read_bytes() == (run.directory / name).read_bytes(), name


def test_rows_and_outcomes_are_those_of_their_seed(tiny, tmp_path):
    """Also where data and weights do not depend on it: strategies draw by it."""
    given, other = (
        Run(configure(tiny, tmp_path, SECTION, f"experiment.seed={seed}"), RunFolder(tmp_path))
        for seed in (0, 1)
    )
    other.splits, given.network = given.splits, build_network(given.config, given.splits)
    other.network = given.network
    found = orders(given.config)
    told = [pruning._about(run, found, PruningStage.code) for run in (given, other)]
    settings = [PruningStage().settings(run) for run in (given, other)]
    for one, another in (told, settings):
        assert [key for key in one if one[key] != another[key]] == ["seed"]


@pytest.mark.slow
def test_rows_of_another_distribution_are_not_kept(tiny, tmp_path, monkeypatch):
    def stop(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pruning, "chosen", stop)
        Short(configure(tiny, tmp_path / "run")).run(progress=False)
    other = configure(tiny, tmp_path / "run", SECTION, "pruning.distribution=global_threshold")
    judged: list[str] = []
    real = pruning.judge
    monkeypatch.setattr(pruning, "judge", lambda *a, **k: judged.append("") or real(*a, **k))
    Short(other).run(progress=False, resume=True)
    assert len(judged) == 11


def test_means_stand_in_where_they_are_asked_for(tiny, tmp_path):
    section = "{strategies: [magnitude], amounts: [0.5], random_seeds: [], value: mean}"
    run = Short(configure(tiny, tmp_path / "run", section, "training.epochs=0")).run(progress=False)
    config = configure(tiny, tmp_path / "run", section)
    splits = load_splits(config)
    network = build_network(config, splits)
    (x, y), (seen, _) = splits.test.tensors, splits.calibration.tensors
    with torch.no_grad():
        flat = network.flatten(seen)
        fill = [network.fc1(flat).mean(0), network.fc2(network.fc1(flat).relu()).mean(0)]
        hidden = network.flatten(x)
        for layer, mean in zip((network.fc1, network.fc2), fill, strict=True):
            gone = layer.weight.norm(dim=1).argsort()[: len(layer.weight) // 2]
            hidden = layer(hidden)
            hidden[:, gone] = mean[gone]
            hidden = hidden.relu()
        loss = torch.nn.functional.cross_entropy(network.fc3(hidden), y)
    assert run.pruning["loss"].iloc[1] == pytest.approx(float(loss), rel=1e-5)
    assert not (tmp_path / "run/checkpoints/initial.safetensors").exists()


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("{strategies: [magnitud]}", r"strategies.0.name: .*did you mean 'magnitude'"),
        ("{strategies: [{name: magnitude, norm: 2, nrm: 1}]}", "no option 'nrm'"),
        ("{strategies: [{name: magnitude, amount: 0.5}]}", "amount: not an option here"),
        ("{strategies: [random]}", "random choices are always compared with"),
        ("{strategies: [magnitude], value: mean, shrink: true}", "value is 'mean'"),
        ("{strategies: [magnitude], distribution: unifrom}", "did you mean 'uniform'"),
        ("{strategies: [magnitude], amounts: [1.0]}", "amounts.0"),
        ("{strategies: [magnitude], layers: [fc9]}", "pruning.layers: layer 'fc9'"),
        ("{strategies: []}", "strategies"),
    ],
)
def test_what_cannot_work_is_told_before_any_work(tiny, tmp_path, section, said):
    with pytest.raises(ConfigError, match=said):
        Short(configure(tiny, tmp_path / "run", section)).run(progress=False)
    assert not (tmp_path / "run").exists()


def test_an_error_on_the_way_names_the_strategy_and_its_line(tiny, tmp_path):
    section = "{strategies: [magnitude, network_slimming], amounts: [0.5]}"
    with pytest.raises(ConfigError, match=r"pruning.strategies.1: .*strategy 'network_slimming'"):
        Short(configure(tiny, tmp_path / "run", section)).run(progress=False)


def test_evaluation_alone_is_a_stage_of_its_own(tiny, tmp_path):
    config = tiny(tmp_path / "run", ("sensitivity", None), "evaluation={rows: 100}")
    run = Short(config).run(progress=False)
    told = json.loads((run.directory / "results/evaluation.json").read_text())
    assert told["rows"] == 100 and 0 <= told["accuracy_low"] <= told["accuracy"] <= told["top5"]
    assert [stage.name for stage in pruning_stages(config)] == ["evaluation"]
    with pytest.raises(ConfigError, match=r"evaluation.rows: 9999 rows, but the test part has"):
        Short(tiny(tmp_path / "other", "evaluation={rows: 9999}")).run(progress=False)


# Language models

WORDS = """\
experiment: {name: words, type: llm}
model: {name: PUT}
dataset: {name: pydoc, tokens: 960, block_size: 32, batch_size: 4, test_fraction: 0.2}
calibration: {rows: 4}
lenses: [weight_magnitude]
pruning:
  strategies: [magnitude, {name: flap, distribution: size_proportional}]
  amounts: [0.5]
  layers: ["model.layers.*.mlp.down_proj"]
  random_seeds: [0, 1]
  shrink: true
evaluation: {block_size: 16, stride: 8, tokens: 100}
output: {directory: PUT}
"""


class Words(LLMAlignmentExperiment):
    """Text, model, scores and pruning."""

    def stages(self):
        return [s for s in super().stages() if s.name not in ("analysis", "figures", "report")]


def test_a_language_model_is_judged_by_windows_of_the_test_text(tmp_path, monkeypatch, capsys):
    model = write_language_model(tmp_path / "model")
    asked: list[object] = []

    def harness(model, tasks, *, channels, limit, **options):
        asked.append((tuple(tasks), len(channels.channels), limit))
        return {"results": {"piqa": {"acc,none": 0.5, "alias": "piqa"}}}

    monkeypatch.setattr(judging, "evaluate_tasks", harness)
    monkeypatch.setattr(judging, "harness", lambda: None)  # installed or not
    given = [("model.name", str(model)), ("output.directory", str(tmp_path / "run"))]
    tasks = ["evaluation.tasks=[piqa]", "evaluation.task_limit=3"]
    config = parse_config(WORDS, [*given, *tasks], source="words.yaml")
    run = Words(config).run()
    table = run.pruning
    windows = (
        "windows of 16 tokens, one every 8, of the first 100 tokens of the test part, in float32"
    )
    printed = " ".join(capsys.readouterr().out.split())
    # The whole model, and the best and worst order: no perplexity without what it was taken on.
    assert printed.count(f"({windows})") == 2 and "blocks of 32 tokens, stride 32" in printed
    assert list(table["strategy"]) == ["dense", *["magnitude"] * 2, *["flap"] * 2, *["random"] * 2]
    # Windows of 16 every 8 tokens of 100: 11 windows, the first with 15 predictions, then 8 each.
    assert list(table[table["split"] == "test"]["rows"]) == [15 + 10 * 8] * 5
    # For `evaluation`, the whole model, four orders, and the model that was cut out.
    assert asked == [(("piqa",), n, 3) for n in (0, 0, 2, 2, 2, 2, 0)]
    assert list(table["piqa:acc"].dropna()) == [0.5] * 5
    told = json.loads((run.directory / "results/pruning.json").read_text())
    assert told["shrunk"]["loaded_by"] == "from_pretrained"
    from transformers import AutoModelForCausalLM

    small = AutoModelForCausalLM.from_pretrained(run.directory / "shrunk")
    assert small.config.intermediate_size == 8  # 6 of 12 are left, and 2 zeros: a multiple of 8
    assert told["shrunk"]["test"]["perplexity"] == pytest.approx(
        float(table[table["strategy"] == told["shrunk"]["strategy"]]["perplexity"].iloc[0]),
        rel=1e-4,
    )


# Killed

SLOWLY = """
    import time
    from nodelens.experiments.stages import pruning
    real = pruning.judge
    def slowly(*given, **options):
        time.sleep(0.5)
        return real(*given, **options)
    pruning.judge = slowly
    from nodelens.cli import main
    main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_goes_on_behind_its_last_row(tiny, tmp_path, end):
    import textwrap

    from nodelens.configs.config_loader import dump_config

    (tmp_path / "slowly.py").write_text(textwrap.dedent(SLOWLY))
    config = configure(tiny, tmp_path / "run")
    (tmp_path / "run.yaml").write_text(dump_config(config))
    kept = tmp_path / "run/checkpoints/pruning.json"
    process = start(tmp_path / "slowly.py", "run", tmp_path / "run.yaml")
    until = time.monotonic() + 120
    while not kept.exists() or len(json.loads(kept.read_text())["rows"]) < 3:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(end)
    process.communicate(timeout=60)
    assert process.returncode != 0
    before = json.loads(kept.read_text())["rows"]
    process = start("-m", "nodelens", "run", tmp_path / "run.yaml", "--resume")
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    Short(configure(tiny, tmp_path / "straight")).run(progress=False)
    assert len(before) >= 3
    for name in (TABLE, "results/pruning.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def test_the_strategies_of_a_section_are_those_of_the_registry(tiny, tmp_path):
    section = "{strategies: [magnitude, {name: magnitude, norm: 1}]}"
    found = pruning.orders(configure(tiny, tmp_path, section))
    assert [o.label for o in found] == ["magnitude", "magnitude (norm=1)", *["random"] * 3]
    assert type(found[0].strategy) is type(get_pruning_strategy("magnitude"))
    assert PruningStage().needs == ("data", "network")
