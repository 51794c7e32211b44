"""What helps to write configurations: the template, the schema for editors, the importer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from nodelens.configs import Config, load_config
from nodelens.configs.config_loader import parse_config
from nodelens.configs.editors import json_schema
from nodelens.configs.importer import import_config, import_text
from nodelens.errors import ConfigError

EXAMPLES = Path(__file__).parents[2] / "configs" / "examples"
# What the reference's documentation gives as a unified configuration, shortened.
UNIFIED = """\
experiment:
  name: "llama3_8b_analysis"
  type: "llm_alignment"
  device: "cpu"
  output_dir: "./results/llama"
model:
  name: "hf_causal_lm"
  model_id: "meta-llama/Llama-3.1-8B"
  dtype: "bfloat16"
  tracked_layers: ["model.layers.*.mlp.down_proj"]
dataset:
  name: "wikitext"
  subset: "wikitext-2-raw-v1"
calibration:
  num_samples: 128
  max_length: 2048
  batch_size: 4
metrics:
  scar: {enabled: true, num_samples: 64}
  redundancy: {enabled: false}
  rayleigh_quotient:
    enabled: true
    relative: true
supernode:
  core_fraction: 0.01
pruning:
  ratios: [0.1, 0.3]
"""


OTHERS = "# Sections of other families: take the signs in front away.\n"


def keys(schema: dict[str, Any], section: dict[str, Any], path: str = "") -> Iterator[str]:
    """Every dotted key of a JSON schema, sections before what is in them."""
    for name, value in section.get("properties", {}).items():
        yield f"{path}{name}"
        text = str(value)
        if (found := re.search(r"#/\$defs/(\w+)", text)) and "items" not in value:
            yield from keys(schema, schema["$defs"][found[1]], f"{path}{name}.")


def test_the_template_names_and_explains_every_key():
    schema = json_schema()
    text, _, others = (EXAMPLES / "template.yaml").read_text().partition(OTHERS)
    data = yaml.safe_load(text) | yaml.safe_load(re.sub("^# ?", "", others, flags=re.MULTILINE))
    missing = []
    for key in keys(schema, schema):
        value: Any = data
        for part in key.split("."):
            value = value.get(part, missing) if isinstance(value, dict) else missing
        if value is missing:
            missing.append(key)
    assert missing == [] and len(list(keys(schema, schema))) > 30
    load_config(EXAMPLES / "template.yaml")


def test_the_template_says_the_defaults_where_it_gives_no_example():
    config = load_config(EXAMPLES / "template.yaml")
    smallest = parse_config(
        "{experiment: {name: x}, model: {name: mlp}, dataset: {name: digits},"
        " lenses: [weight_magnitude], output: {directory: x}}"
    )
    for section in ("dataset", "training", "output", "experiment"):
        for name in type(getattr(config, section)).model_fields:
            if (section, name) in {
                ("training", "epochs"), ("output", "directory"), ("experiment", "name"),
            }:  # fmt: skip
                continue
            one, other = (getattr(getattr(c, section), name) for c in (config, smallest))
            assert one == other, (section, name)


def accepts(schema: dict[str, Any], part: dict[str, Any], value: Any) -> bool:
    """Whether `value` is valid, as far as the words of JSON Schema go that pydantic writes here."""
    if "$ref" in part:
        return accepts(schema, schema["$defs"][part["$ref"].rpartition("/")[2]], value)
    if "anyOf" in part:
        return any(accepts(schema, choice, value) for choice in part["anyOf"])
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int}
    kinds |= {"number": (int, float), "null": type(None)}
    if "type" in part and not isinstance(value, kinds[part["type"]]):
        return False
    if isinstance(value, bool) and part.get("type") in ("integer", "number"):
        return False
    if "enum" in part and value not in part["enum"]:
        return False
    if "pattern" in part and not re.search(part["pattern"], value):
        return False
    if isinstance(value, dict):
        named = part.get("properties", {})
        if not set(part.get("required", ())) <= set(value):
            return False
        if part.get("additionalProperties") is False and not set(value) <= set(named):
            return False
        return all(accepts(schema, named[k], v) for k, v in value.items() if k in named)
    if isinstance(value, list) and "items" in part:
        return all(accepts(schema, part["items"], item) for item in value)
    return value >= part.get("minimum", value) if isinstance(value, (int, float)) else True


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_schema_for_editors_accepts_every_example(example):
    assert accepts(json_schema(), json_schema(), yaml.safe_load(example.read_text()))


@pytest.mark.parametrize(
    ("old", "new", "fits"),
    [
        ("epochs: 3", "epochs: ${EPOCHS}", True),
        ("type: general_alignment", "type: vision_synergy", True),
        ("epochs: 3", "epochs: many", False),
        ("epochs: 3", "epoch: 3", False),
        ("type: general_alignment", "type: vision", False),
        ("rows: 256", "rows: 0", False),
    ],
)
def test_the_schema_for_editors_refuses_what_the_loader_refuses(old, new, fits):
    text = (EXAMPLES / "template.yaml").read_text().replace(old, new, 1)
    assert new in text and accepts(json_schema(), json_schema(), yaml.safe_load(text)) == fits


def test_a_unified_configuration_becomes_one_of_ours():
    found = import_text(UNIFIED, "llama.yaml")
    config = Config.model_validate(found.data)
    assert config.experiment_type == "llm_alignment"
    assert config.model.name == "meta-llama/Llama-3.1-8B"
    assert config.model.options == {"dtype": "bfloat16"}
    assert (config.dataset.block_size, config.calibration.rows) == (2048, 128)
    assert config.dataset.batch_size == 4
    assert config.output.directory == "./results/llama"
    assert [lens.name for lens in config.lenses] == [
        "scar_activation_power",
        "scar_taylor",
        "scar_curvature",
        "scar_loss_proxy",
        "rayleigh_quotient",
    ]
    assert config.lenses[-1].options == {"relative": True}


def test_what_an_import_leaves_out_is_listed_with_its_line():
    found = import_text(UNIFIED, "llama.yaml")
    left = {entry.key: entry.line for entry in found.unmapped}
    assert left == {
        "model.tracked_layers": 10,
        "dataset.name": 12,
        "dataset.subset": 13,
        "metrics.scar.num_samples": 19,
        "metrics.redundancy.enabled": 20,
        "pruning.ratios": 27,
    }
    assert any("line 13: dataset.subset: wikitext-2-raw-v1: " in line for line in found.report())
    leaves = 20 - 1  # model.name is what the dialect calls every language model
    assert len(found.unmapped) + len(found.mapped) == leaves


PRUNED = UNIFIED.replace(
    "pruning:\n  ratios: [0.1, 0.3]\n",
    """pruning:
  enabled: true
  ratios: [0.0, 0.1, 0.3]
  selection_modes: ["low", "random"]
  distribution: "uniform"
  max_per_layer: 0.95
  algorithms: ["rq_low", "magnitude", "wanda", "generalized_importance", "random"]
  scoring_methods: ["scar_taylor", "redundancy", "redundancy_high"]
  fine_tune: {enabled: true, epochs: 2, learning_rate: 1.0e-5, max_batches: 200}
""",
)


def test_the_pruning_of_a_unified_configuration_becomes_ours():
    found = import_text(PRUNED, "llama.yaml")
    section = Config.model_validate(found.data).pruning
    assert section is not None
    assert [entry.name for entry in section.strategies] == [
        "rayleigh_quotient", "activation_l2_norm", "wanda", "scar_taylor", "average_redundancy",
    ]  # fmt: skip
    assert (section.amounts, section.modes, section.distribution) == (
        (0.1, 0.3),
        ("low",),
        "uniform",
    )
    assert section.fine_tuning is not None
    assert (section.fine_tuning.epochs, section.fine_tuning.learning_rate) == (2, 1e-5)
    left = [(e.key, e.value) for e in found.unmapped if e.key.startswith("pruning")]
    assert left == [
        ("pruning.enabled", True),
        ("pruning.max_per_layer", 0.95),
        ("pruning.algorithms", "generalized_importance"),
        ("pruning.scoring_methods", "redundancy"),
        ("pruning.fine_tune.max_batches", 200),
    ]


FURTHER = """\
supernode: {enabled: true, score_metric: activation_l2_norm, core_fraction: 0.02, protect_core: yes}
clustering: {enabled: false, n_clusters: 4}
halo_analysis: {enabled: true, percentile: 90.0}
evaluation:
  enabled: true
  loss: true
  bits_per_byte: true
  perplexity_enabled: true
  evaluation_num_samples: 100
  benchmarks_enabled: true
  benchmark_tasks: [{name: piqa, num_fewshot: 0}, {name: mmlu, num_fewshot: 5}, boolq]
visualization: {enabled: true, format: pdf, dpi: 300}
"""


def test_supernodes_judging_and_figures_of_a_language_model_become_ours():
    text = UNIFIED.replace("supernode:\n  core_fraction: 0.01\n", FURTHER)
    found = import_text(text, "llama.yaml")
    config = Config.model_validate(found.data)
    assert config.supernode is not None and config.evaluation is not None
    assert (config.supernode.score, config.supernode.core) == ("activation_l2_norm", 0.02)
    assert "activation_l2_norm" in [lens.name for lens in config.lenses]
    assert (config.evaluation.tasks, config.evaluation.task_limit) == (("piqa", "boolq"), 100)
    assert config.figures.formats == ("pdf",)
    left = {entry.key: entry.why for entry in found.unmapped}
    assert left["clustering.n_clusters"] == "not enabled"
    assert left["supernode.protect_core"] == left["halo_analysis.percentile"] == "has no equal here"
    assert left["evaluation.benchmark_tasks"] == "tasks are asked without examples"
    none = import_text(text.replace("benchmarks_enabled: true", "benchmarks_enabled: false"))
    assert "tasks" not in none.data["evaluation"]


CLUSTERED = """\
experiment: {name: words, type: vision_cluster_analysis}
model: {name: cnn2p2}
dataset: {name: digits}
calibration: {num_samples: 500}
metrics:
  rayleigh_quotient: {enabled: true}
  redundancy: {enabled: true}
  synergy: {enabled: true}
clustering:
  enabled: true
  n_clusters: 3
  features: ["rayleigh_quotient", "synergy"]
  n_bootstrap: 7
  type_names: [critical, redundant]
halo_analysis:
  percentile: 80.0
  use_activation_weight: false
  permutation_baseline: {enabled: true, n_permutations: 99}
cascade_analysis: {enabled: true, n_remove_per_group: 5, damage_sample_fraction: 0.2}
evaluation: {enabled: true, accuracy: true, top5_accuracy: true, confusion_matrix: true}
"""


def test_clusters_halos_and_cascade_become_ours_and_can_be_run(tmp_path):
    from nodelens.experiments import Run, experiment_for
    from nodelens.experiments.folder import RunFolder

    found = import_text(CLUSTERED, "words.yaml")
    config = Config.model_validate(found.data)
    kinds, halo, causal = config.clustering, config.halo, config.causal
    assert kinds is not None and halo is not None and causal is not None
    assert (kinds.n_clusters, kinds.features, kinds.bootstraps) == (3, "rq_syn", 7)
    assert (halo.percentile, halo.use_activation_weight, halo.permutations) == (80, False, 99)
    assert (causal.counts, config.calibration.rows) == ((5,), 500)
    assert config.evaluation is not None
    assert [entry.key for entry in found.unmapped] == [
        "clustering.type_names",
        "halo_analysis.permutation_baseline.enabled",
        "cascade_analysis.damage_sample_fraction",
        "evaluation.confusion_matrix",
    ]
    # Its scores are those of its lenses.
    run = Run(config, RunFolder(tmp_path))
    for stage in experiment_for(config).stages():
        stage.check(run)


@pytest.mark.parametrize(
    ("names", "ours"),
    [
        ('["synergy", "redundancy", "rayleigh_quotient"]', "all"),
        ('["redundancy"]', "red_only"),
        ('["redundancy", "magnitude"]', None),
        ("[]", None),
    ],
)
def test_features_are_those_that_there_are(names, ours):
    found = import_text(CLUSTERED.replace('["rayleigh_quotient", "synergy"]', names))
    assert found.data["clustering"].get("features") == ours


def test_pruning_that_is_not_enabled_is_left_out():
    found = import_text(PRUNED.replace("enabled: true\n  ratios", "enabled: false\n  ratios"))
    assert "pruning" not in found.data
    assert {e.why for e in found.unmapped if e.key.startswith("pruning")} == {"not enabled"}
    tuned = import_text(PRUNED.replace("fine_tune: {enabled: true", "fine_tune: {enabled: false"))
    assert "fine_tuning" not in tuned.data["pruning"]


def test_an_import_that_makes_no_configuration_says_what_is_missing(tmp_path):
    (tmp_path / "old.yaml").write_text("experiment: {name: x}\nmodel: {name: resnet18}\n")
    with pytest.raises(ConfigError, match=r"model: missing") as caught:
        import_config(tmp_path / "old.yaml")
    assert "line 2: model.name: resnet18: expected one of mlp" in str(caught.value)


def test_a_default_is_written_as_in_a_shell_too(monkeypatch):
    text = (EXAMPLES / "template.yaml").read_text().replace("epochs: 3", "epochs: ${E:-4}")
    assert parse_config(text).training.epochs == 4
    monkeypatch.setenv("E", "6")
    assert parse_config(text).training.epochs == 6


def test_a_key_of_another_family_is_told_with_its_line():
    text = (EXAMPLES / "template.yaml").read_text().replace("tokens: null", "tokens: 9")
    line = text[: text.index("tokens: 9")].count("\n") + 1
    with pytest.raises(ConfigError, match=rf"x.yaml, line {line}: dataset.tokens: not read by"):
        parse_config(text, source="x.yaml")
