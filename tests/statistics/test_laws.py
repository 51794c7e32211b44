"""Laws of merging, for every statistic there is: streams may be cut and shared out anyhow."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nodelens.errors import MergeError
from nodelens.statistics import (
    Constant,
    Mean,
    RowCosines,
    RowNorms,
    SingularValues,
    Statistic,
    Weights,
)
from tests.statistics.streams import (
    KINDS,
    LAYOUTS,
    Kind,
    assert_same,
    cut,
    mergeable_classes,
    merged,
    sample_for,
    stream,
)

EVERY_STATISTIC = pytest.mark.parametrize("kind", KINDS, ids=str)
SEEDS = st.integers(0, 2**31 - 1)
SHIFTS = st.sampled_from([0.0, 1e4])
ROWS = st.integers(2, 40)
FEW = settings(max_examples=4)


def ends(fractions: list[float], rows: int) -> list[int]:
    return [int(fraction * rows) for fraction in fractions]


FRACTIONS = st.lists(st.floats(0, 1), min_size=1, max_size=4)
TWO_CUTS = st.lists(st.floats(0, 1), min_size=2, max_size=2)


def test_every_statistic_is_tried():
    assert {kind.statistic for kind in KINDS} == set(mergeable_classes())
    assert set(LAYOUTS) <= set(mergeable_classes())


@EVERY_STATISTIC
@FEW
@given(seed=SEEDS, rows=ROWS, fractions=FRACTIONS, shift=SHIFTS)
def test_merging_streams_equals_one_stream(kind: Kind, seed, rows, fractions, shift):
    sample = sample_for(kind, rows, seed=seed, shift=shift)
    parts = cut(sample, ends(fractions, rows))
    assert_same(merged(kind, *parts), merged(kind, sample))


@EVERY_STATISTIC
@FEW
@given(seed=SEEDS, rows=ROWS, fractions=TWO_CUTS, shift=SHIFTS)
def test_merging_is_associative_and_commutative(kind: Kind, seed, rows, fractions, shift):
    sample = sample_for(kind, rows, seed=seed, shift=shift)
    a, b, c = (kind.measure(part).widened() for part in cut(sample, ends(fractions, rows)))

    def both(one: Statistic, other: Statistic) -> Statistic:
        total = copy.deepcopy(one)
        total.merge(other)
        return total

    left = both(both(a, b), c)
    assert_same(both(a, both(b, c)), left)
    assert_same(both(both(b, a), c), left)
    assert_same(both(c, both(b, a)), left)


@EVERY_STATISTIC
@FEW
@given(seed=SEEDS, rows=ROWS, fractions=FRACTIONS)
def test_narrow_batches_merge_into_wide_states(kind: Kind, seed, rows, fractions):
    sample = sample_for(kind, rows, seed=seed, dtype=torch.float32)
    whole = merged(kind, sample)
    split = merged(kind, *cut(sample, ends(fractions, rows)))
    assert_same(split, whole, tolerance=1e-5)
    assert all(t.dtype == torch.float64 for t in split.state().values() if t.is_floating_point())


@EVERY_STATISTIC
@FEW
@given(seed=SEEDS, rows=ROWS, shift=SHIFTS)
def test_a_part_without_rows_is_neutral(kind: Kind, seed, rows, shift):
    sample = sample_for(kind, rows, seed=seed, shift=shift)
    nothing = cut(sample, [0])[0]
    assert len(nothing.values) == 0
    alone = merged(kind, sample)
    assert_same(merged(kind, sample, nothing), alone, tolerance=0)
    assert_same(merged(kind, nothing, sample), alone, tolerance=1e-15)
    assert_same(merged(kind, nothing, nothing, sample), alone, tolerance=1e-15)


@EVERY_STATISTIC
def test_nothing_but_empty_parts_is_empty(kind: Kind):
    nothing = cut(sample_for(kind, 4, seed=1), [0])[0]
    empty = merged(kind, nothing, nothing)
    assert empty.rows == 0
    assert not any(tensor.isnan().any() for tensor in empty.state().values())


@EVERY_STATISTIC
@FEW
@given(seed=SEEDS, rows=ROWS)
def test_a_state_survives_a_file_and_goes_on(kind: Kind, seed, rows):
    first, second = cut(sample_for(kind, rows, seed=seed), [rows // 2])
    straight = merged(kind, first, second)
    half = merged(kind, first)
    plain = json.loads(json.dumps(half.plain()))
    state = {name: tensor.clone() for name, tensor in half.state().items()}
    loaded = Statistic.of_kind(half.kind()).from_state(state, plain)
    loaded.merge(kind.measure(second))
    assert loaded.state().keys() == straight.state().keys()
    assert_same(type(loaded).from_state(loaded.state(), straight.plain()), straight, tolerance=0)


@EVERY_STATISTIC
def test_merging_leaves_the_other_part_as_it_was(kind: Kind):
    first, second = cut(sample_for(kind, 9, seed=3), [4])
    for one, other in ((first, second), (second, first)):
        taken = kind.measure(other).widened()
        before = copy.deepcopy(taken)
        total = merged(kind, one)
        total.merge(taken)
        total.merge(taken)
        assert_same(taken, before, tolerance=0)


@EVERY_STATISTIC
def test_a_widened_copy_owns_its_state(kind: Kind):
    measured = kind.measure(sample_for(kind, 6, seed=4))
    before = copy.deepcopy(measured)
    mine = measured.widened()
    for tensor in mine.state().values():
        tensor.zero_()
    assert_same(measured, before, tolerance=0)


@EVERY_STATISTIC
def test_measuring_leaves_the_batch_as_it_was(kind: Kind):
    sample = sample_for(kind, 6, seed=5)
    before = copy.deepcopy(sample)
    kind.measure(sample)
    for name in ("values", "gradient", "targets", "inputs"):
        mine, theirs = getattr(sample, name), getattr(before, name)
        assert theirs is None or torch.equal(mine, theirs), name


@EVERY_STATISTIC
def test_options_and_counts_are_plain_data(kind: Kind):
    measured = kind.measure(sample_for(kind, 6, seed=6))
    assert json.loads(json.dumps(measured.plain())).keys() == measured.plain().keys()
    assert isinstance(measured.rows, int)


@EVERY_STATISTIC
def test_another_statistic_cannot_be_merged_in(kind: Kind):
    class Stranger(Mean):
        pass

    measured = kind.measure(sample_for(kind, 6, seed=7))
    with pytest.raises(MergeError, match="cannot merge Stranger into"):
        measured.merge(Stranger(1, torch.zeros(3)))


@pytest.mark.parametrize("constant", [RowCosines, RowNorms, SingularValues, Weights])
def test_a_constant_merges_with_its_equal_alone(constant: type[Constant]):
    sample = stream("rows", 5, seed=8)
    first = constant.measure(sample)
    first.merge(constant.measure(sample))
    assert_same(first, constant.measure(sample), tolerance=0)
    with pytest.raises(MergeError, match="different models, or the weights changed"):
        first.merge(constant.measure(stream("rows", 5, seed=9)))
