"""A configuration says what is wrong with it: file, line, key, value and what was expected."""

from __future__ import annotations

import pytest

from nodelens.configs import Config, load_config
from nodelens.configs.config_loader import dump_config, parse_config
from nodelens.errors import ConfigError

TEXT = """\
experiment:
  name: tiny
  seed: ${TINY_SEED:7}
model:
  name: mlp
dataset:
  name: digits
training:
  epochs: 3
  learning_rate: 1e-3
lenses:
  - rayleigh_quotient
  - name: taylor_saliency
    mode: sq_mean
sensitivity:
  scores: [rayleigh_quotient]
  amounts: [0.5, 1]
output:
  directory: ${TINY_OUTPUT:outputs}/tiny
"""


def parse(old: str = "", new: str = "", *overrides: str | tuple[str, object]) -> Config:
    assert old in TEXT
    return parse_config(TEXT.replace(old, new, 1) if old else TEXT, overrides, source="tiny.yaml")


def complaint(old: str = "", new: str = "", *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(old, new, *overrides)
    return str(caught.value)


def test_a_file_gives_its_values_and_the_defaults():
    config = parse()
    assert (config.experiment.seed, config.training.epochs) == (7, 3)
    assert config.training.learning_rate == 0.001
    assert config.training.batch_size == 64
    assert config.lenses[0].name == "rayleigh_quotient" and config.lenses[0].options == {}
    assert config.lenses[1].options == {"mode": "sq_mean"}
    assert config.sensitivity is not None and config.sensitivity.amounts == (0.5, 1)
    assert config.output.directory == "outputs/tiny"


@pytest.mark.parametrize("alias", ["general_alignment", "alignment_analysis", "vision_synergy"])
def test_aliases_of_a_family_are_one_experiment_type(alias):
    assert parse("seed:", f"type: {alias}\n  seed:").experiment_type == "general_alignment"


def test_a_written_configuration_loads_to_the_same():
    config = parse()
    assert parse_config(dump_config(config)) == config
    assert parse("epochs: 3", "epochs: 4") != config


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "epochs: 3",
            "epoch: 3",
            "tiny.yaml, line 9: training.epoch: unknown key (value 3) (did you mean 'epochs'?),"
            " expected one of epochs, batch_size, learning_rate, weight_decay",
        ),
        (
            "lenses:",
            "lens:",
            "tiny.yaml: lenses: missing, expected a list of lenses, each a name or a section with a"
            " name and options\n"
            "tiny.yaml, line 11: lens: unknown key (value ['rayleigh_quotient', {'name':"
            " 'taylor_saliency', 'mode': 'sq_mean'}]) (did you mean 'lenses'?), expected one of"
            " experiment, model, dataset, training, calibration, lenses, sensitivity, ",
        ),
        (
            "epochs: 3",
            "epochs: x",
            "tiny.yaml, line 9: training.epochs: 'x', expected a whole number",
        ),
        ("epochs: 3", "epochs: 2.5", "line 9: training.epochs: 2.5, expected a whole number"),
        ("epochs: 3", "epochs: true", "line 9: training.epochs: True, expected a whole number"),
        ("epochs: 3", 'epochs: "3"', "line 9: training.epochs: '3', expected a whole number"),
        ("epochs: 3", "epochs:", "line 9: training.epochs: None, expected a whole number"),
        ("epochs: 3", "epochs: -1", "training.epochs: -1, expected greater than or equal to 0"),
        ("1e-3", ".nan", "training.learning_rate: nan, expected a finite number"),
        ("1e-3", "-1e-3", "training.learning_rate: -0.001, expected greater than 0"),
        (
            "0.5, 1]",
            "0.5, 2]",
            "line 17: sensitivity.amounts.1: 2, expected less than or equal to 1",
        ),
        ("[rayleigh_quotient]", "rayleigh", "sensitivity.scores: 'rayleigh', expected a list"),
        ("name: tiny", "name: ../x", "'../x', expected a name made of letters, digits"),
        ("name: mlp", "nam: mlp", "tiny.yaml, line 4: model.name: missing"),
        ("  - name: taylor", "  - nam: taylor", "line 13: lenses.1.name: missing"),
        (
            "seed:",
            "device: gpu\n  seed:",
            "'gpu', expected `auto`, `cpu`, `mps`, `cuda` or `cuda:N`",
        ),
        ("  name: digits", "  name: digits\n  test_fraction: 0.9", "leaves nothing to train on"),
        (
            "  epochs: 3\n  learning_rate: 1e-3",
            "epochs: 3",
            "line 9: epochs: unknown key (value 3) (did you mean 'training.epochs'?)",
        ),
        ("name: mlp", "name: mlp\n  seed: 3", "(did you mean 'experiment.seed'?), expected one"),
        ("[rayleigh_quotient]", "mutual", "'mutual', expected a list, such as [mutual]"),
        (
            "- rayleigh_quotient\n",
            "- rayleigh_quotient: {relative: true}\n",
            "line 12: lenses.0.name: missing, expected `name:` with the registry name of a lens",
        ),
    ],
)
def test_a_mistake_is_told_with_line_key_value_and_what_was_expected(old, new, said):
    assert said in complaint(old, new)


def test_a_misspelt_word_is_told_the_nearest():
    said = complaint("seed:", "type: vision_sinergy\n  seed:")
    assert "'vision_sinergy', expected 'general_alignment', 'llm_alignment', " in said
    assert "(did you mean 'vision_synergy'?)" in said


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file():
    lines = complaint("epochs: 3\n  learning_rate: 1e-3", "epoch: 3\n  learning_rate: fast")
    assert [line.split(":")[0] for line in lines.splitlines()] == [
        "tiny.yaml, line 9",
        "tiny.yaml, line 10",
    ]


def test_a_wrong_item_is_not_told_again_as_an_empty_list():
    assert complaint("[0.5, 1]", "[0.5, 1]\n  modes: [lwo]").count("\n") == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "tiny.yaml: is empty; expected the sections experiment,"),
        ("- 1", "tiny.yaml: file: [1], expected a section with experiment,"),
        ("a: [1", "tiny.yaml, line 1: not valid YAML"),
        ("a:\n  b: 1\n   c: 2", "line 3: not valid YAML: a second ':' in one entry; expected"),
        ("a:\n  b: 1\n c: 2", "line 3: not valid YAML: indented unlike the other lines of"),
        ("a:\n\tb: 1", "line 2: not valid YAML: a tab, expected spaces"),
        ("a: 1\n---\na: 2", "line 2: not valid YAML: a second document, behind '---'"),
        ('a: "1\nb: 2\n', "found unexpected end of stream (while scanning a quoted"),
        ("a: [1\nb: 2", "but got ':' (while parsing a flow sequence, from line 1)"),
        ("a:\n  b: 2024-01-01", "line 2: a.b: a value of the kind 'tag:yaml.org,2002:timestamp'"),
        ("a:\n  b: ${A B}/c", "line 2: a.b: after '${' stands no variable's name and '}'"),
        ("a: 1\nb:\n  c: 1\n  c: 2", "line 4: b.c: given twice, first in tiny.yaml, line 3"),
        ("a: &x 1\nb: *x", "line 2: not valid YAML: alias *x: a configuration writes every value"),
        ("1: 2", "tiny.yaml, line 1: the key 1 is not text; put it in quotes"),
        (
            "a: !!python/object/apply:os.getcwd []",
            "a value of the kind 'tag:yaml.org,2002:python/object/apply:os.getcwd', expected",
        ),
        ("a: \0", "not valid YAML"),
    ],
)
def test_text_that_is_no_configuration_is_told_where_it_breaks(text, said):
    with pytest.raises(ConfigError) as caught:
        parse_config(text, source="tiny.yaml")
    assert said in str(caught.value)


def test_a_missing_file_is_told_the_nearest(tmp_path):
    (tmp_path / "digits.yaml").write_text(TEXT)
    with pytest.raises(ConfigError, match=r"no such file \(did you mean 'digits.yaml'\?\)"):
        load_config(tmp_path / "digit.yaml")


def test_overrides_win_and_are_read_as_yaml():
    config = parse(
        "",
        "",
        "training.epochs=9",
        "training.learning_rate=1e-2",
        "lenses.1.mode=abs_mean",
        "sensitivity.modes=[low]",
        "calibration.rows=64",
        ("output.directory", "a: [b"),
    )
    assert (config.training.epochs, config.training.learning_rate) == (9, 0.01)
    assert config.lenses[1].options == {"mode": "abs_mean"}
    assert config.sensitivity is not None and config.sensitivity.modes == ("low",)
    assert (config.calibration.rows, config.output.directory) == (64, "a: [b")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.epoch=9", "override: training.epoch: unknown key (value 9) (did you mean"),
        ("training.epochs", "override 'training.epochs' is not of the form key.sub=value"),
        ("training.epochs=[", "override 'training.epochs=[': not valid YAML"),
        ("lenses.5.mode=x", "override: lenses has no item '5', expected 0 to 1"),
        ("lenses.0.mode=x", "lenses.0 is 'rayleigh_quotient', not a section: it has no 'mode'"),
    ],
)
def test_a_wrong_override_is_told_as_one(override, said):
    assert said in complaint("", "", override)


def test_variables_come_from_the_environment_with_their_type(monkeypatch):
    monkeypatch.setenv("TINY_SEED", "11")
    monkeypatch.setenv("TINY_OUTPUT", "/data: [x]")
    config = parse()
    assert config.experiment.seed == 11
    assert config.output.directory == "/data: [x]/tiny"


def test_a_variable_without_value_or_default_is_told():
    said = complaint("${TINY_SEED:7}", "${TINY_NOT_SET}")
    assert "tiny.yaml, line 3: experiment.seed: the environment variable TINY_NOT_SET is" in said


def test_a_later_check_names_file_and_line_too():
    error = parse().error(("lenses", 1, "mode"), "'x', expected 'abs_mean'")
    assert str(error) == "tiny.yaml, line 14: lenses.1.mode: 'x', expected 'abs_mean'"


def test_a_configuration_cannot_change_under_a_run():
    with pytest.raises(ValueError, match="frozen"):
        parse().training.epochs = 4


def test_every_example_in_the_repository_loads(pytestconfig):
    examples = sorted((pytestconfig.rootpath / "configs").rglob("*.yaml"))
    assert examples
    for example in examples:
        load_config(example)
