"""Configuration files with any content: a Config or a ConfigError, in bounded time, no code run."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodelens.configs import Config
from nodelens.configs.config_loader import dump_config, load_config, parse_config
from nodelens.errors import ConfigError

EXAMPLES = sorted((Path(__file__).parents[2] / "configs" / "examples").glob("*.yaml"))
TEXTS = [path.read_text("utf-8") for path in EXAMPLES]
VALUES = [
    "!!python/object/apply:os.system ['exit 1']", "!!python/name:os.system", "!!timestamp x",
    "!!int x", "!!float x", "!!bool x", "!!binary x", "!!set {a}", "!!omap [a: 1]", "!<x> y",
    "2001-99-99", "2001-01-01T99:99:99Z", "1" * 5000, "0x", "0b2", "1:99:99", "1e999", ".nan",
    "-.inf", "9" * 30, "-1", "~", "=", "<<: {a: 1}", "&a x", "*a", "${X", "${HOME}", "${NOWHERE}",
    '"\\ud800"', '"\\0"', "{a: 1, a: 2}", "{1: 2}", "{[a]: 1}", "[[1]]", "null", "''",
]  # fmt: skip
SCRAPS = [
    "\0", "\ufeff", "\x85", "\t", "'", '"', "[", "{", "]", "}", ": ", "- ", "? ", "|", "---\n",
    "...\n", "%YAML 9.9\n", "&a ", "*a", "\n  ", "#", "!",
]  # fmt: skip


def outcome(text: str, *overrides: str) -> Config | ConfigError:
    """The configuration, which loads again to the same, or the error; anything else is raised."""
    try:
        config = parse_config(text, overrides)
    except ConfigError as error:
        assert 0 < len(str(error)) < 20_000
        return error
    assert parse_config(dump_config(config)) == config
    return config


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """An example with a few of its values exchanged, and scraps put in or parts cut out."""
    text = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 2))):
        lines = text.split("\n")
        settable = [n for n, line in enumerate(lines) if ":" in line and "#" not in line]
        if settable and draw(st.booleans()):
            number = draw(st.sampled_from(settable))
            key = lines[number].partition(":")[0]
            lines[number] = f"{key}: {draw(st.sampled_from(VALUES))}"
            text = "\n".join(lines)
    for _ in range(draw(st.integers(0, 2))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(start + 20, len(text))))
        text = text[:start] + draw(st.sampled_from(["", *SCRAPS])) + text[end:]
    return text


@pytest.mark.parametrize("text", TEXTS, ids=[path.stem for path in EXAMPLES])
def test_the_examples_themselves_are_configurations(text: str):
    assert isinstance(outcome(text), Config)


@settings(max_examples=80)
@given(mutated())
def test_a_mutated_example_is_a_configuration_or_an_error(text: str):
    outcome(text)


@pytest.mark.slow
@settings(max_examples=600)
@given(mutated())
def test_many_mutated_examples_are_configurations_or_errors(text: str):
    outcome(text)


@given(st.text(max_size=80))
def test_any_text_is_an_error(text: str):
    assert isinstance(outcome(text), ConfigError)


@settings(max_examples=50)
@given(content=st.binary(max_size=60))
def test_any_bytes_are_an_error(content: bytes, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        load_config(path)


@given(
    st.lists(
        st.sampled_from(["experiment", "lenses", "0", "²", "9" * 5000, "-1", "", "a"]), min_size=1
    ),
    st.sampled_from(VALUES) | st.text(max_size=20),
)
@settings(max_examples=100)
def test_any_override_is_taken_or_an_error(parts: list[str], value: str):
    outcome(TEXTS[0], f"{'.'.join(parts)}={value}")


@pytest.mark.parametrize("value", VALUES)
def test_every_odd_value_is_taken_or_an_error_that_names_the_line(value: str):
    text = TEXTS[0].replace("hidden: [64]", f"hidden: {value}")
    found = outcome(text)
    line = text[: text.index(f"hidden: {value}")].count("\n") + 1
    assert isinstance(found, Config) or f"line {line}" in str(found)


BOMBS = {
    "lists": "[" * 100_000,
    "sections in one line": "a: " + "{a: " * 5000,
    "sections by indent": "\n".join(" " * depth + "a:" for depth in range(2000)),
    "closed lists": TEXTS[0].replace("[64]", "[" * 400 + "]" * 400),
    "aliases": "a: &a [x, x]\n" + "\n".join(f"b{n}: [*a, *a]" for n in range(100)),
    "merge keys": "a: &a {x: 1}\nb:\n  <<: *a\n",
    "many keys": "\n".join(f"k{n}: 1" for n in range(3000)),
    "a long key": "x" * 200_000 + ": 1",
    "a long value": TEXTS[0].replace("digits_basic", "x" * 200_000),
    "a long number": TEXTS[0].replace("seed: 0", "seed: " + "1" * 200_000),
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_a_short_error_in_bounded_time(text: str):
    # Time of this process, so that a busy machine does not matter.
    start = time.process_time()
    if "x" * 100 not in text:
        assert isinstance(outcome(text), ConfigError)
    outcome(text)
    assert time.process_time() - start < 5


def test_many_mistakes_are_told_by_their_first_twenty():
    lines = str(outcome(BOMBS["many keys"])).splitlines()
    assert len(lines) == 21 and lines[0].startswith("configuration: experiment: missing")
    assert lines[-1] == "and 2985 more mistakes"


@pytest.mark.parametrize(
    "tag", ["object/apply:os.system", "object/new:os.system", "name:os.system"]
)
def test_a_tag_runs_no_code(tag: str, tmp_path: Path):
    mark = tmp_path / "ran"
    text = TEXTS[0].replace("hidden: [64]", f"hidden: !!python/{tag} ['touch {mark}']")
    for found in (outcome(text), outcome(TEXTS[0], f"model.options.hidden=!!python/{tag} [x]")):
        assert isinstance(found, ConfigError) and "python/" in str(found)
    assert not mark.exists()


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, "/", "\udcff"])
def test_a_path_that_no_file_has_is_an_error(path: str):
    with pytest.raises(ConfigError):
        load_config(path)


@pytest.mark.parametrize(
    "name", ["../up", "a/b", "/etc/x", "a\\\\b", "..", ".", "", "a\\nb", "-x", "a b", "x:y"]
)
def test_an_experiments_name_is_no_path(name: str):
    found = outcome(TEXTS[0].replace("name: digits_basic", f'name: "{name}"'))
    assert isinstance(found, ConfigError) and "experiment.name" in str(found)
