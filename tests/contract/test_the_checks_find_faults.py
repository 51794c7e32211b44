"""Every public check fails for a lens that breaks its promise: the checks have teeth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from nodelens import Lens
from nodelens.errors import IncompatibleModelError, UnknownNameError
from nodelens.registry import LENSES
from nodelens.testing import checks
from nodelens.testing.checks import _CHECKS
from tests.contract.faulty import (
    CannotGoOnFromAFile,
    CannotTakeAnEmptyBatch,
    ChangesWhatItMerges,
    CountsPadding,
    CrashesHalfWay,
    DividesByTheVariance,
    DrawsFromTheGlobalGenerator,
    EditsWithoutSayingSo,
    HasNoUnit,
    InvertsTheCovariance,
    LeavesAGradient,
    LeavesAHook,
    LeavesTrainingMode,
    RefusesHalfPrecision,
    RemembersTheLastBatch,
    SaysHalf,
    ScoresOneChannelTooFew,
    Sound,
    SumsInHalfPrecision,
    TakesAnyOption,
    WeighsBatchesEqually,
    WritesAWeight,
)

FAULTS = [
    (WeighsBatchesEqually, "split_invariance", "expected .* to 1e-05 of"),
    (WeighsBatchesEqually, "split_invariance_in_float64", "expected .* to 1e-10 of"),
    (SumsInHalfPrecision, "split_invariance", "expected .* to 1e-05 of"),
    (RemembersTheLastBatch, "merge_laws", "expected .* to 1e-10 of"),
    (ChangesWhatItMerges, "merge_laws", "expected .* to 1e-10 of"),
    (DrawsFromTheGlobalGenerator, "repeatable", "score .* differs"),
    (DrawsFromTheGlobalGenerator, "untouched_model", "torch's generator changed"),
    (CannotGoOnFromAFile, "saved_state", r"maps of \(1,\) after maps of \[1\]"),
    (DividesByTheVariance, "degenerate_units", "values of score .* are not finite"),
    (InvertsTheCovariance, "degenerate_units", "values of score .* are not finite"),
    (HasNoUnit, "described", "has no unit"),
    (ScoresOneChannelTooFew, "described", r"has shape \(5,\), expected one of \[2, 6\]"),
    (CountsPadding, "no_row_of_padding", "expected .* to 1e-10 of"),
    (CountsPadding, "non_finite_input", "was not noticed"),
    (EditsWithoutSayingSo, "composite", "expected .* to 1e-05 of"),
    (WritesAWeight, "untouched_model", "head.weight has other values"),
    (LeavesAHook, "untouched_model", "_forward_hooks of"),
    (LeavesAGradient, "untouched_model", "head.weight has another .grad"),
    (LeavesTrainingMode, "untouched_model", "training flag of"),
    (LeavesTrainingMode, "untouched_after_a_failure", "training flag of"),
    (CrashesHalfWay, "untouched_after_a_failure", "requires_grad of"),
    (CannotTakeAnEmptyBatch, "few_rows", "no row"),
    (RefusesHalfPrecision, "half_precision", "bfloat16"),
    (TakesAnyOption, "options_are_checked", "unknown option .* was taken"),
    (SaysHalf, "stated", "no word on degenerate channels"),
]
EVERY_FAULT = pytest.mark.parametrize(
    ("lens", "key", "message"), FAULTS, ids=[f"{lens.__name__}-{key}" for lens, key, _ in FAULTS]
)


@pytest.fixture
def registered(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Registers a lens for one test alone, so that no other test meets it."""
    names = []

    def register(lens: type[Lens]) -> str:
        name = f"faulty.{lens.__name__}"
        names.append(name)
        Lens.register(name)(lens)
        return name

    yield register
    for name in names:
        del LENSES._classes[name]


def test_a_sound_lens_passes_every_check(registered):
    for check in checks(registered(Sound)):
        check()


@EVERY_FAULT
def test_a_faulty_lens_fails_its_check(registered, lens, key, message):
    (check,) = (check for check in checks(registered(lens)) if check.key == key)
    # What a run raises fails a check as much as an assertion does.
    with pytest.raises(Exception, match=message):
        check()


def test_every_check_fails_for_some_lens():
    assert {key for _, key, _ in FAULTS} == set(_CHECKS)


def test_a_lens_that_scores_no_network_is_told_why(registered):
    class ScoresNothing(Sound):
        def covers(self, layer: Any) -> bool:
            return False

    check = next(checks(registered(ScoresNothing)))
    with pytest.raises(IncompatibleModelError, match=r"AwkwardNetwork: .*; TokenNetwork: "):
        check()


def test_an_exempt_check_is_skipped_with_its_reason(registered):
    class Exempt(DividesByTheVariance):
        exempt = {"degenerate_units": "it is infinite there"}

    skipped = [check for check in checks(registered(Exempt)) if check.skipped]
    assert [check.key for check in skipped] == ["degenerate_units"]
    assert skipped[0].skipped == "it is infinite there"
    skipped[0]()


def test_an_exemption_from_no_check_is_an_error(registered):
    class Misspelled(Sound):
        exempt = {"degenerate_unit": "a slip"}

    with pytest.raises(UnknownNameError, match="did you mean 'degenerate_units'"):
        list(checks(registered(Misspelled)))


def test_every_check_is_named_by_a_sentence(registered):
    for check in checks(registered(Sound)):
        assert check.name[0].isupper() and " " in check.name, check
        assert str(check) == f"{check.lens}-{check.key}"
