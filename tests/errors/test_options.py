"""Options of the wrong type, and targets of which none counts: told, whatever the lens."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from nodelens import Lens, ModelWrapper
from nodelens.errors import InvalidValueError, NodeLensError
from nodelens.options import made
from tests.errors.attempts import network, x


class Options:
    def __init__(
        self,
        count: int = 1,
        share: float | None = 0.5,
        exact: bool = True,
        given: str | Sequence[int] = "pc1",
        values: dict[str, Tensor] | None = None,
        own=None,
    ) -> None:
        if count == -1:
            raise InvalidValueError("count is -1, expected 0 or more")
        if exact == "fails":
            raise TypeError("of its own")
        self.given = locals()


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("count", "x", "count is 'x', expected a whole number"),
        ("count", 2.5, "count is 2.5, expected a whole number"),
        ("count", True, "count is True, expected a whole number"),
        ("count", -1, "count is -1, expected 0 or more"),
        ("share", "x", "share is 'x', expected a number or None"),
        ("exact", "no", "exact is 'no', expected True or False"),
        ("exact", "fails", "exact is 'fails', expected True or False"),
        ("given", 3, "given is 3, expected text or several values"),
        ("values", [1], r"values is \[1\], expected dict or None"),
    ],
)
def test_a_value_of_the_wrong_type_is_told_with_option_and_expectation(option, value, expected):
    with pytest.raises(InvalidValueError, match=expected):
        made("some", Options, (), {option: value})


@pytest.mark.parametrize(
    "options",
    [
        {"count": np.int64(3), "share": np.float32(0.5)},
        {"share": 1, "given": torch.arange(3), "values": None},
        {"share": None, "given": [1], "values": {}, "own": object()},
    ],
)
def test_what_python_takes_for_the_annotation_is_let_through(options):
    assert made("some", Options, (), options).given.items() >= options.items()


def test_an_error_of_the_lens_itself_is_not_hidden():
    class Failing(Options):
        def __init__(self, count: int = 1) -> None:
            raise TypeError("of its own")

    with pytest.raises(TypeError, match="of its own"):
        made("some", Failing, (), {"count": 3})


def test_annotations_that_cannot_be_read_check_nothing():
    class Foreign:
        def __init__(self, count: NoSuchName = 1) -> None:  # type: ignore[name-defined]  # noqa: F821
            self.count = count

    assert made("some", Foreign, (), {"count": "x"}).count == "x"


@pytest.mark.parametrize("name", Lens.names())
def test_no_lens_takes_just_anything_for_an_option_that_it_annotates(name):
    kind = Lens.named(name)
    params = kind.example(ModelWrapper(network()))[0].params
    annotations = inspect.get_annotations(kind.__init__)
    for option in inspect.signature(kind).parameters:
        if annotations.get(option) != "Any":
            with pytest.raises(NodeLensError):
                Lens.from_name(name, **{**params, option: object()})


@pytest.mark.parametrize("name", ["taylor_saliency", "fisher", "gradient_alignment"])
def test_gradients_of_no_target_are_noted(name):
    lens, targets = Lens.from_name(name), torch.arange(20) % 3
    nothing = torch.full_like(targets, -100)
    run = lens.run(network(), [(x(), targets), (x(), nothing), (x(), nothing)], progress=False)
    told = "no target that counts (all are -100)"
    assert [told in note for note in run.notes] == [True]
    assert told in lens.analyse(network(), (x(), nothing)).notes[0]
    assert not lens.analyse(network(), (x(), targets)).notes


@pytest.mark.parametrize("name", ["ablation", "single_channel_damage"])
def test_a_loss_over_no_target_is_an_error(name):
    options = {"channels": {"0": [1]}} if name == "ablation" else {}
    lens, nothing = Lens.from_name(name, **options), torch.full((20,), -100)
    with pytest.raises(InvalidValueError, match=f"'{name}': nothing was predicted"):
        lens.analyse(network(), (x(), nothing))
    lens.run(network(), [(x(), torch.arange(20) % 3), (x(), nothing)], progress=False)


@pytest.mark.parametrize("name, option", [("cascade", "types"), ("lens_leaderboard", "board")])
def test_an_option_without_a_default_is_asked_for(name: str, option: str):
    with pytest.raises(InvalidValueError, match=f"lens '{name}' needs {option}="):
        Lens.from_name(name)
