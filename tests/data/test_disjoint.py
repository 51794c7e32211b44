"""Calibration and evaluation documents have no text in common; rows that meet are noticed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from nodelens.data import Fingerprint, calibration_and_evaluation
from nodelens.data.text import Document
from nodelens.errors import InvalidValueError, TooFewRowsError

TEXTS = st.lists(st.text("abc", max_size=3), min_size=2, max_size=30)


@given(
    texts=TEXTS.filter(lambda t: len(set(t)) > 1),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 9),
)
def test_no_text_is_in_both_parts_and_none_is_lost(texts: list[str], share: float, seed: int):
    documents = [Document(str(n), text) for n, text in enumerate(texts)]
    mine, theirs = calibration_and_evaluation(documents, share, seed)
    assert mine and theirs
    assert not {d.text for d in mine} & {d.text for d in theirs}
    assert sorted(int(d.title) for d in [*mine, *theirs]) == list(range(len(texts)))
    wanted = min(max(round(share * len(set(texts))), 1), len(set(texts)) - 1)
    assert len({d.text for d in mine}) == wanted
    assert (mine, theirs) == calibration_and_evaluation(documents, share, seed)
    assert not Fingerprint.of(mine).shared(Fingerprint.of(theirs))


def test_another_seed_gives_other_parts_and_leaves_the_generator():
    texts, state = [str(n) for n in range(40)], torch.get_rng_state()
    parts = {tuple(calibration_and_evaluation(texts, 0.5, seed)[0]) for seed in range(5)}
    assert len(parts) == 5 and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("share", [0, 1, -0.5])
def test_a_share_that_leaves_a_part_empty_is_an_error(share: float):
    with pytest.raises(InvalidValueError, match=f"share is {share}, expected between 0 and 1"):
        calibration_and_evaluation(["a", "b"], share)
    with pytest.raises(TooFewRowsError, match="1 different documents, expected at least 2"):
        calibration_and_evaluation(["a", "a"])


def test_rows_are_the_same_however_they_are_batched():
    x, y = torch.randn(12, 3), torch.arange(12)
    whole = Fingerprint.of((x, y))
    assert len(whole) == 12
    loader = DataLoader(TensorDataset(x, y), batch_size=5, shuffle=True)
    state = torch.get_rng_state()
    for other in (
        x,
        [x],
        loader,
        [(x, {"targets": y})],
        x.numpy(),
        [{"inputs": x}],
        [(x.clone(),)],
    ):
        assert Fingerprint.of(other) == whole
    assert torch.equal(torch.get_rng_state(), state)
    assert Fingerprint.of([x[:4], x[4:]]) == whole
    assert whole.shared(Fingerprint.of(x[3:5] + 0)) == 2
    assert whole.shared(Fingerprint.of(x + 1e-6)) == 0
    assert Fingerprint.of(x.bfloat16()).shared(Fingerprint.of(x.bfloat16()[:3])) == 3


def test_tokens_count_and_masks_do_not():
    ids = torch.arange(12).view(3, 4)
    first = Fingerprint.of([{"attention_mask": torch.ones(3, 4), "input_ids": ids}])
    assert first.shared(Fingerprint.of([{"input_ids": ids[1:]}, {"input_ids": ids[:1] + 1}])) == 2


def test_texts_are_rows():
    documents = [Document("a", "one"), Document("b", "two")]
    assert Fingerprint.of(documents) == Fingerprint.of(["one", "two"])
    assert Fingerprint.of([["one", "two"]]) == Fingerprint.of(["one", "two", "one"])
    with pytest.raises(InvalidValueError, match="a int has no rows to take a fingerprint of"):
        Fingerprint.of(3)
