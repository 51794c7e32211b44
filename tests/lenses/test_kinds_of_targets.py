"""Every lens about targets with every kind of them: it agrees with its oracle or says why not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nodelens import CompositeLens, Lens
from nodelens.errors import NodeLensError, NonFiniteError
from nodelens.metrics import get_metric, list_metrics
from nodelens.metrics.facts import LensFacts
from nodelens.metrics.targets import LOGIT_TARGETS
from tests.lenses.agreement import ENTRIES
from tests.lenses.networks import CASES
from tests.lenses.test_logit_targets import classifier, tokens
from tests.model.families import language_model
from tests.oracles import across, classes
from tests.oracles.capture import Array, Captured, Plain, capture
from tests.oracles.rows import pixels

ABOUT_TARGETS = [
    name
    for name in list_metrics()
    if name in Lens.names()
    and "targets" in LensFacts.of(name).needs
    and Lens.named(name).family != "clusters"  # k-means of a part's scores: test_clusters.py
]
GIVEN = ("classes", "number", "numbers")
KINDS = (*GIVEN, *LOGIT_TARGETS)
CLASSES = 4
_OF_CLASSES = dict.fromkeys(("number", "numbers"), "class numbers are needed")
_NO_LOGITS = dict.fromkeys(LOGIT_TARGETS, "has no option 'target'")
_CLASS_ONLY = {**_OF_CLASSES, **_NO_LOGITS}
REFUSED: dict[str, dict[str, str]] = {
    "class_informative_score": _CLASS_ONLY,
    "class_selectivity": _CLASS_ONLY,
    "classification_alignment": _CLASS_ONLY,
    "conditional_activation_norm": _CLASS_ONLY,
    "conditional_rayleigh_quotient": _CLASS_ONLY,
    "delta_rq": _CLASS_ONLY,
    "mi_about_class": _CLASS_ONLY,
    "representation_quality": _NO_LOGITS,
    "synergy_gaussian_mmi": _CLASS_ONLY,
    "conditional_mi": _OF_CLASSES,
    "mutual_information_binning": {"logit_pc1": "expected one of targets, logit_margin"},
    "synergy_continuous_target": dict.fromkeys(
        ("number", "numbers"), "'logit_margin' is a logit of the correct class"
    ),
}
"""What a lens does not take, and what its error says."""
MARGIN = ("synergy_continuous_target", "classes")


def oracle_of(name: str, kind: str) -> Callable[[Captured, Array], Array]:
    """What a lens should give, from the layer and the class numbers of its rows."""
    if name == "synergy_continuous_target":
        return lambda c, _: across.synergy_with_chosen(pixels(c.outputs), c.targets, 10, 50)
    if name == "conditional_mi" and kind in LOGIT_TARGETS:
        return lambda c, labels: classes.information_within_classes(
            pixels(c.outputs), labels, c.targets[:, None]
        )
    if name == "representation_quality" and kind != "classes":
        return lambda c, _: classes.left_out_number_quality(pixels(c.outputs), c.targets)
    entry = next(e for e in ENTRIES if e.lens == name and not e.options)
    return lambda c, _: entry.oracle(c)


def made(name: str, kind: str, layer: str) -> Lens:
    """The lens about a kind of target, through the option that it has for it."""
    if name == "representation_quality" and kind in ("number", "numbers"):
        return Lens.from_name(name, layers=layer, targets="numbers")
    if kind in GIVEN and name != "synergy_continuous_target":
        return Lens.from_name(name, layers=layer)
    chosen: dict[str, Any] = {"reference" if name == "conditional_mi" else "target": kind}
    if name == "composite_importance":
        chosen = {"options": {"gaussian_pid_synergy_mmi": chosen}}
    return Lens.from_name(name, layers=layer, **({} if kind in GIVEN else chosen))


@cache
def seen() -> tuple[Any, Tensor, Tensor, Captured]:
    model, x, y = classifier(CLASSES)
    return model, x, y, capture(model, [Plain((x,), targets=y)])["0"]


def targets_of(kind: str, labels: Array, logits: Array) -> Array:
    if kind == "classes":
        return labels
    if kind in LOGIT_TARGETS:
        return across.decision(logits, labels, kind)
    drawn = np.random.default_rng(0).normal(size=(len(labels), 2))
    return drawn[:, 0] if kind == "number" else drawn


def test_every_lens_about_targets_has_an_oracle():
    assert set(REFUSED) <= set(ABOUT_TARGETS)
    for name in ABOUT_TARGETS:
        oracle_of(name, "classes")


def together(kind: str, layer: str, model: Any, batches: list[Any], **options: Any) -> Any:
    """The scores of all lenses that take a kind of target, by lens."""
    names = [name for name in ABOUT_TARGETS if kind not in REFUSED.get(name, {})]
    lens = CompositeLens([made(name, kind, layer) for name in names])
    result = lens.run(model, batches, progress=False, **options)
    return {name: result[layer][label] for name, label in zip(names, lens.labels, strict=True)}


@cache
def scored(kind: str) -> Any:
    model, x, y, _ = seen()
    given = torch.from_numpy(targets_of(kind, y.numpy(), np.zeros(0))) if kind in GIVEN else y
    return together(kind, "0", model, [(x[:11], given[:11]), (x[11:], given[11:])])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ABOUT_TARGETS)
def test_a_kind_of_target_agrees_with_the_oracle_or_is_refused(name: str, kind: str):
    model, x, y, captured = seen()
    if kind in REFUSED.get(name, {}):
        given = torch.from_numpy(targets_of(kind, y.numpy(), np.zeros(0))) if kind in GIVEN else y
        with pytest.raises(NodeLensError, match=REFUSED[name][kind]):
            made(name, kind, "0").analyse(model, (x, given))
        return
    # Classes make a lens on logits one about their margin.
    asked = "logit_margin" if (name, kind) == MARGIN else kind
    target = targets_of(asked, y.numpy(), model(x).detach().numpy())
    expected = oracle_of(name, kind)(replace(captured, targets=target), y.numpy())
    np.testing.assert_allclose(scored(kind)[name], expected, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("columns", [1, 2])
def test_numbers_of_tokens_are_their_own_and_padding_has_none(columns: int):
    case = next(one for one in CASES if one.padded)
    lenses = ("mutual_information_gaussian", "gaussian_pid_synergy_mmi", "pid_shared")
    model, x = case.make(torch.float64), case.inputs(torch.Generator().manual_seed(5)).double()
    mask = torch.arange(6) < torch.arange(48)[:, None] % 5 + 2
    numbers = torch.randn(48, 6, columns).double()
    lens = CompositeLens([Lens.from_name(name, layers="embed") for name in lenses])
    parts = [(x[p], {"targets": numbers[p], "mask": mask[p]}) for p in (slice(9), slice(9, None))]
    found = lens.run(model, parts, progress=False)["embed"]
    whole = Plain((x,), targets=numbers.flatten(0, 1), mask=mask)
    captured = capture(model, [whole], ["embed"])["embed"]
    for name in lenses:
        expected = oracle_of(name, "numbers")(captured, np.zeros(0))
        np.testing.assert_allclose(found[name], expected, rtol=1e-8)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", [n for n in ABOUT_TARGETS if "number" not in REFUSED.get(n, {})])
def test_targets_that_are_not_finite_are_an_error(name: str, value: float):
    model, x, _, captured = seen()
    target = torch.randn(30).double()
    target[7] = value
    says = "1 NaN and 0 inf" if np.isnan(value) else "0 NaN and 1 inf"
    with pytest.raises(NonFiniteError, match=f"{says}inite values among 30 in its targets"):
        made(name, "number", "0").analyse(model, (x, target))
    outputs = torch.from_numpy(captured.outputs)
    with pytest.raises(NonFiniteError, match=f"{says}inite values among 30 in its targets"):
        get_metric(name, **made(name, "number", "0").params).compute(
            inputs=x, outputs=outputs, weights=model[0].weight, targets=target
        )


KEYS = "model.layers.0.self_attn.k_proj"


@cache
def read(everywhere: bool) -> tuple[Any, Any, Array, Captured]:
    """A language model, its text, logits and a layer where it predicts, or at every token.

    The targets of what is captured are the next tokens.
    """
    model, batch = language_model("Llama").double().eval(), tokens()
    mask = batch["attention_mask"].bool()
    if not everywhere:
        mask = torch.nn.functional.pad(mask[:, 1:] & mask[:, :-1], (0, 1))
    plain = Plain(kwargs=batch, targets=batch["input_ids"].roll(-1, 1).flatten(), mask=mask)
    logits = model(**batch).logits.detach()[mask].numpy()
    return model, batch, logits, capture(model, [plain], [KEYS])[KEYS]


@cache
def scored_text(kind: str) -> Any:
    model, batch, *_ = read(False)
    parts = [{k: v[rows] for k, v in batch.items()} for rows in (slice(0, 2), slice(2, 5))]
    return together(kind, KEYS, model, parts, token_classes=CLASSES)


# Of the composite, redundancy sees every token, synergy those that predict one: no one oracle.
OF_TOKENS = [
    (name, kind)
    for name, kind in product(ABOUT_TARGETS, ("classes", *LOGIT_TARGETS))
    if name != "composite_importance" and kind not in REFUSED.get(name, {})
]


@pytest.mark.parametrize(("name", "kind"), OF_TOKENS)
def test_next_tokens_and_their_logits_agree_with_the_oracle(name: str, kind: str):
    # The logits' first component needs no next token, but within classes.
    *_, logits, captured = read(kind == "logit_pc1" and name != "conditional_mi")
    assert captured.targets is not None
    labels = captured.targets % CLASSES
    asked = "logit_margin" if (name, kind) == MARGIN else kind
    target = labels if asked == "classes" else targets_of(asked, captured.targets, logits)
    expected = oracle_of(name, kind)(replace(captured, targets=target), labels)
    np.testing.assert_allclose(scored_text(kind)[name], expected, rtol=1e-7, atol=1e-10)
