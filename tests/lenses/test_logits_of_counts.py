"""The model's own logits as targets of counts, of moments within classes and of every atom."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nodelens import Lens
from nodelens.errors import InvalidValueError, MissingTargetsError
from nodelens.metrics import get_metric
from nodelens.metrics.targets import LOGIT_TARGETS
from nodelens.testing.trial import assert_close
from tests.lenses.test_logit_targets import classifier, tokens
from tests.model.families import language_model
from tests.oracles import across, classes
from tests.oracles.capture import Array
from tests.oracles.pairs import atoms

SPLIT = (slice(0, 4), slice(4, 5), slice(5, None))
ATOMS = {
    "pid_shared": "shared",
    "pid_unique_x": "unique_x",
    "pid_unique_y": "unique_y",
    "pid_synergy": "synergy",
    "interaction_information": "interaction",
}


def told(kind: str) -> tuple[nn.Module, list[tuple[Tensor, Tensor]], Array, Array, Array]:
    """A model and its batches; the first layer's rows, the target and the classes."""
    model, x, y = classifier()
    target = across.decision(model(x).detach().numpy(), y.numpy(), kind)
    parts = [(x[rows], y[rows]) for rows in SPLIT]
    return model, parts, model[0](x).detach().numpy(), target, y.numpy()


@pytest.mark.parametrize("kind", LOGIT_TARGETS)
def test_logits_within_classes_agree_with_the_oracle(kind: str):
    model, parts, rows, target, labels = told(kind)
    lens = Lens.from_name("conditional_mi", reference=kind, layers="0")
    found = lens.run(model, parts, progress=False)["0"]["conditional_mi"]
    expected = classes.information_within_classes(rows, labels, target[:, None])
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-11)
    numbers = torch.from_numpy(np.column_stack([labels, target]))
    plain = get_metric("conditional_mi", reference=kind).compute(
        outputs=torch.from_numpy(rows), targets=numbers
    )
    np.testing.assert_allclose(plain, expected, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("kind", ["correct_logit", "logit_margin"])
@pytest.mark.parametrize("strategy", ["quantile", "uniform"])
def test_counts_with_logits_agree_with_the_oracle(kind: str, strategy: str):
    model, parts, rows, target, _ = told(kind)
    options = {"target": kind, "bins": 4, "strategy": strategy}
    lens = Lens.from_name("mutual_information_binning", layers="0", **options)
    found = lens.run(model, parts, progress=False)["0"]["mutual_information_binning"]
    expected = classes.binned_information(rows, target, bins=4, strategy=strategy)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    plain = get_metric("mi_binning", **options).compute(
        outputs=torch.from_numpy(rows), targets=torch.from_numpy(target)
    )
    np.testing.assert_allclose(plain, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", LOGIT_TARGETS)
def test_every_atom_about_a_logit_agrees_with_the_oracle(kind: str):
    model, parts, rows, target, _ = told(kind)
    for name, atom in ATOMS.items():
        lens = Lens.from_name(name, target=kind, layers="0")
        found = lens.run(model, parts, progress=False)["0"][name]
        np.testing.assert_allclose(found, atoms(rows, target)[atom], rtol=1e-7, atol=1e-12)


def test_next_tokens_are_the_classes_and_tokens_without_one_are_left_out():
    model, batch = language_model("Llama").double().eval(), tokens()
    lens = Lens.from_name("cond_mi", reference="logit_margin", layers="*0.mlp.down_proj")
    parts = [{k: v[rows] for k, v in batch.items()} for rows in (slice(0, 2), slice(2, 5))]
    whole = lens.run(model, [batch], progress=False, token_classes=4)
    assert_close(lens.run(model, parts, progress=False, token_classes=4), whole, 1e-9)
    counted = batch["attention_mask"].bool()
    assert set(whole.rows.values()) == {int((counted[:, 1:] & counted[:, :-1]).sum())}


def test_a_plan_counts_the_classes_and_what_cannot_be_is_told():
    model, parts, *_ = told("logit_margin")
    lens = Lens.from_name("conditional_mi", reference="logit_margin", layers="0")
    batch = tuple(torch.cat(of) for of in zip(*parts, strict=True))
    held = lens.measure(model, [batch], progress=False).statistics["0"].values()
    size = sum(t.numel() * t.element_size() for s in held for t in s.state().values())
    assert lens.plan(model, batch).bytes == {"cpu": size}
    assert lens.plan(model).reads[0].unknown == ("classes",)
    with pytest.raises(MissingTargetsError, match="logit of the correct class"):
        lens.analyse(model, batch[0])
    every = Lens.from_name("conditional_mi", reference="logit_pc1", layers="0")
    with pytest.raises(MissingTargetsError, match="needs class numbers, one a prediction"):
        every.analyse(model, batch[0])
    with pytest.raises(InvalidValueError, match="expected one of targets, logit_margin, correct"):
        Lens.from_name("mi_binning", target="logit_pc1")
