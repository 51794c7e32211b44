"""Targets that come from the model's own outputs, and next tokens as classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nodelens import Aggregator, CompositeLens, Lens, LensResult
from nodelens.errors import InvalidValueError, MissingTargetsError, ShapeError, UnknownOptionError
from nodelens.metrics import get_metric, targets
from nodelens.model.logits import MOST_LOGITS
from nodelens.statistics import ClassMoments, CrossMoments, LabelledCoMoments, Read
from nodelens.testing.trial import assert_close, assert_equal
from tests.lenses.networks import CASES, SPLITS
from tests.model.families import language_model
from tests.oracles import across as oracle
from tests.oracles.capture import Array, capture
from tests.oracles.information import about_targets, synergy
from tests.oracles.pairs import atoms
from tests.oracles.rows import pixels

KINDS = targets.LOGIT_TARGETS


def lenses() -> list[Lens]:
    names = ("mutual_information_gaussian", "gaussian_pid_synergy_mmi", "synergy_continuous_target")
    return [
        *(Lens.from_name(name, target=kind) for name in names for kind in KINDS),
        Lens.from_name("synergy_continuous_target", partners="all", eps=1e-7),
        Lens.from_name("synergy_continuous_target", k=2, candidates=3),
        Lens.from_name("mutual_information_gaussian"),
    ]


ORACLES = {
    "mutual_information_gaussian": about_targets,
    "gaussian_pid_synergy_mmi": synergy,
    "synergy_continuous_target": lambda rows, t: oracle.synergy_with_chosen(rows, t, 10, 50),
}


@pytest.mark.parametrize("name", ["mlp", "conv2d, zeros", "called twice"])
def test_lenses_agree_with_whole_rows(name: str):
    case = next(one for one in CASES if one.name == name)
    given = case.batches(SPLITS["ragged"], torch.float64)
    model = case.make(torch.float64)
    composite = CompositeLens(lenses())
    result = composite.run(model, [batch for batch, _ in given], progress=False)
    shown = capture(model, [plain for _, plain in given])
    outputs = [model(*plain.args) for _, plain in given]
    logits = np.concatenate([first(o).detach().numpy() for o in outputs])
    classes = np.concatenate([plain.targets.numpy() for _, plain in given])
    for label, lens in zip(composite.labels, composite.lenses, strict=True):
        for layer, captured in shown.items():
            if lens.params["target"] == "targets":
                continue
            rows = pixels(captured.outputs)
            wanted = oracle.decision(logits, classes, lens.params["target"])
            spread = np.concatenate(
                [
                    np.tile(part, 2) if (name, layer) == ("called twice", "shared") else part
                    for part in np.split(wanted, np.cumsum(SPLITS["ragged"])[:-1])
                ]
            )
            spread = spread.repeat(len(rows) // len(spread))
            expected = expected_of(lens, rows, spread)
            np.testing.assert_allclose(
                result[layer][label].numpy(), expected, rtol=1e-7, atol=1e-9, err_msg=label + layer
            )


def first(outputs: Any) -> Tensor:
    found: Tensor = outputs[0] if isinstance(outputs, tuple) else outputs
    return found


def expected_of(lens: Lens, rows: Array, target: Array) -> Array:
    if getattr(lens, "partners", "") == "all":
        return synergy(rows, target)
    if getattr(lens, "k", 10) == 2:
        return oracle.synergy_with_chosen(rows, target, 2, 3)
    # A channel that is the target itself is clamped by eps, which the oracle is not.
    found = ORACLES[lens.name](rows, target)
    return np.minimum(found, -0.5 * np.log(1 - (1 - 1e-6) ** 2))


def classifier(classes: int = 4) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 9), nn.ReLU(inplace=True), nn.Linear(9, classes)).double()
    return model, torch.randn(30, 6).double(), torch.arange(30) % classes


def scores(result: LensResult) -> dict[str, Tensor]:
    return {k: v for named in result.values() for k, v in named.items()}


def test_any_split_gives_the_same_scores_and_so_does_a_saved_state(tmp_path: Any):
    model, x, y = classifier()
    lens = CompositeLens([*lenses(), Lens.from_name("taylor_saliency")])
    whole = lens.run(model, [(x, y)], progress=False)
    parts = [(x[:4], y[:4]), (x[4:5], y[4:5]), (x[5:], y[5:])]
    assert_close(lens.run(model, parts, progress=False), whole, 1e-9)
    first, second = (lens.measure(model, part, progress=False) for part in (parts[:1], parts[1:]))
    first.save(tmp_path / "state.safetensors")
    total = Aggregator.load(tmp_path / "state.safetensors")
    total.merge(second)
    assert_close(total.result(), whole, 1e-9)


def test_a_layer_worked_on_in_place_later_is_what_it_gave():
    model, x, y = classifier()
    lens = Lens.from_name("mutual_information_gaussian", target="logit_margin", layers="0")
    got = lens.analyse(model, (x, y))["0"]["mutual_information_gaussian"]
    margin = oracle.decision(model(x).detach().numpy(), y.numpy(), "logit_margin")
    expected = about_targets(model[0](x).detach().numpy(), margin)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-9)


def test_targets_that_are_shuffled_tell_nothing_and_the_true_ones_do():
    """Planted: one channel is the margin itself; no other correlates with it."""
    torch.manual_seed(0)
    rows = torch.linalg.qr(torch.randn(200, 4).double() - torch.randn(200, 4).double().mean(0)).Q
    rows = rows - rows.mean(0)
    margin = rows[:, 0] * 3 + 1
    found = get_metric("mutual_information_gaussian", target="logit_margin").compute(
        outputs=rows, targets=margin
    )
    assert float(found[0]) > 6 and float(found[1:].max()) < 0.02
    shuffled = margin[torch.randperm(200, generator=torch.Generator().manual_seed(1))]
    null = get_metric("synergy_continuous_target").compute(outputs=rows, targets=shuffled)
    # Of a pair, what the weaker one adds to the better one is biased by about 1 / 2n.
    assert 0 <= float(null.mean()) < 0.02


def test_plain_numbers_give_what_the_model_gives():
    model, x, y = classifier()
    rows, logits = model[0](x).detach(), model(x).detach()
    for kind in KINDS:
        for name in ORACLES:
            lens = Lens.from_name(name, target=kind, layers="0")
            expected = lens.analyse(model, (x, y))["0"][name]
            given = oracle.decision(logits.numpy(), y.numpy(), kind)
            numbers = logits if kind == "logit_pc1" else torch.from_numpy(given)
            found = get_metric(name, target=kind).compute(outputs=rows, targets=numbers)
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    with pytest.raises(InvalidValueError, match="about logit margin: targets= are those numbers"):
        get_metric("synergy_continuous_target").compute(outputs=rows, targets=y)


def test_random_partners_are_the_same_each_time_and_in_blocks():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 40), nn.Tanh(), nn.Linear(40, 5)).double()
    batch = torch.randn(60, 6).double(), torch.arange(60) % 5
    lens = Lens.from_name("synergy_continuous_target", partners="random", k=4, layers="0")
    whole = lens.run(model, [batch], progress=False)
    assert_equal(lens.run(model, [batch], progress=False), whole)
    other = Lens.from_name("synergy_continuous_target", partners="random", k=4, seed=1, layers="0")
    assert not torch.equal(
        *(next(iter(scores(r).values())) for r in (whole, other.analyse(model, batch)))
    )
    plan = lens.plan(model, batch)
    budget = plan.peak["cpu"] // 2
    assert any(r.block for r in lens.plan(model, batch, memory_budget=budget).reads)
    assert_close(lens.run(model, [batch], progress=False, memory_budget=budget), whole, 1e-12)


@pytest.mark.parametrize("partners", ["random", "top_k"])
def test_as_many_partners_as_there_are_others_are_all_of_them(partners: str):
    model, x, y = classifier()
    for layer in ("0", "2"):
        some = Lens.from_name("synergy_continuous_target", partners=partners, layers=layer)
        every = Lens.from_name("synergy_continuous_target", partners="all", layers=layer)
        assert_close(some.analyse(model, (x, y)), every.analyse(model, (x, y)), 1e-12)


def test_the_plan_knows_the_logits_and_what_waits_for_them():
    model, x, y = classifier()
    lens = Lens.from_name("mutual_information_gaussian", target="logit_pc1")
    (read, last) = lens.plan(model, (x, y)).reads
    assert read.state == 8 * (9 + 9 + 4 + 16 + 9 * 4) and last.state == 8 * (4 * 2 + 4 + 16 + 16)
    assert read.fresh >= read.state + 30 * 9 * 8 and not read.unknown
    assert lens.plan(model).reads[0].unknown == ("logits",)
    margin = Lens.from_name("mutual_information_gaussian", target="logit_margin")
    assert margin.plan(model).reads[0].unknown == ()


def test_too_many_logits_are_refused_with_what_to_take_instead():
    model, batch = nn.Linear(3, MOST_LOGITS + 1), (torch.randn(4, 3), torch.arange(4))
    lens = Lens.from_name("synergy_continuous_target", target="logit_pc1")
    with pytest.raises(
        InvalidValueError, match=r"products of 2049 logits.*'correct_logit' or 'logit"
    ):
        lens.analyse(model, batch)
    with pytest.raises(InvalidValueError, match="products of 2049 logits"):
        lens.plan(model, batch)


@pytest.mark.parametrize(
    ("classes", "given", "error", "says"),
    [
        (4, None, MissingTargetsError, "'logit_margin' is a logit of the correct class"),
        (4, torch.rand(30), MissingTargetsError, "give class numbers as targets"),
        (4, torch.full((30,), 4), MissingTargetsError, "class number 4 for 4 outputs"),
        (1, torch.zeros(30).long(), MissingTargetsError, "needs two outputs, the model has 1"),
        (4, torch.zeros(30, 2).long(), ShapeError, "no target 'logit_margin' from outputs of"),
    ],
)
def test_what_has_no_margin_is_an_error(classes: int, given: Any, error: Any, says: str):
    model, x, _ = classifier(classes)
    with pytest.raises(error, match=says):
        Lens.from_name("synergy_continuous_target").analyse(
            model, x if given is None else (x, given)
        )


@pytest.mark.parametrize("kind", KINDS)
def test_atoms_and_information_given_inputs_take_logits_too(kind: str):
    model, x, y = classifier()
    rows, logits = model[0](x).detach(), model(x).detach()
    given = oracle.decision(logits.numpy(), y.numpy(), kind)
    for name, atom in (("pid_shared", "shared"), ("pid_synergy", "synergy")):
        found = Lens.from_name(name, target=kind, layers="0").analyse(model, (x, y))["0"][name]
        np.testing.assert_allclose(found, atoms(rows.numpy(), given)[atom], rtol=1e-7, atol=1e-12)
    name = "conditional_mutual_information"
    found = Lens.from_name(name, target=kind, layers="0").analyse(model, (x, y))["0"][name]
    centred = (x - x.mean(0)).numpy()
    along = centred @ np.linalg.svd(centred)[2][0]
    np.testing.assert_allclose(found, beside(rows.numpy(), given, along), rtol=1e-7, atol=1e-12)


def beside(rows: Array, target: Array, third: Array) -> Array:
    """Information of channels with a target, each less its line through `third`, `(channels,)`."""
    line = np.stack([np.ones_like(third), third], 1)
    left = [v - line @ np.linalg.lstsq(line, v, rcond=None)[0] for v in (*rows.T, target)]
    rho = np.corrcoef(left)[-1, :-1]
    found: Array = -0.5 * np.log(1 - np.square(rho))
    return found


def test_options_that_are_none_are_refused():
    for options, says in (
        ({"target": "logit_margn"}, r"did you mean 'logit_margin'"),
        ({"target": "targets"}, "expected one of logit_margin, correct_logit, logit_pc1"),
        ({"partners": "top"}, "expected one of top_k, random, all"),
        ({"k": 60}, "k is 60 of 50 candidates"),
    ):
        with pytest.raises(InvalidValueError, match=says):
            Lens.from_name("synergy_continuous_target", **options)
    with pytest.raises(InvalidValueError, match="which reference='pc1' does not look at"):
        Lens.from_name("mi_gaussian", reference="pc1", target="logit_pc1")
    with pytest.raises(InvalidValueError, match="but given=1 are columns of the batch's targets"):
        Lens.from_name("conditional_mutual_information", given=1, target="logit_pc1")
    with pytest.raises(InvalidValueError, match=r"did you mean 'logit_margin'"):
        Lens.from_name("pid_shared", target="logit_margn")
    with pytest.raises(InvalidValueError, match=r"unknown target 'logit_pc1'.*one of targets"):
        Read("output", CrossMoments, target="logit_pc1")


def test_reads_with_another_target_are_other_reads():
    one, other = (Read("output", CrossMoments, target=t) for t in ("targets", "logit_margin"))
    assert one != other and one.joined(other) is None and one.joined(one) == one
    assert Read.from_json(other.to_json()) == other
    block = Read("output", LabelledCoMoments, target="logit_margin").block(0, 2)
    assert block.target == "logit_margin"
    old = {k: v for k, v in one.to_json().items() if k not in ("target", "beside")}
    assert Read.from_json(old) == one


# Next tokens


def tokens(seed: int = 0, rows: int = 5) -> dict[str, Tensor]:
    ids = torch.randint(2, 28, (rows, 7), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    mask[0, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def test_the_margin_of_next_tokens_is_that_of_whole_rows():
    model = language_model("Llama").double().eval()
    batch = tokens()
    layer = "model.layers.0.mlp.down_proj"
    kept: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(
        lambda m, i, o: kept.append(o.detach())
    )
    logits = model(**batch).logits.detach()
    handle.remove()
    counted = batch["attention_mask"].bool()
    predicted = counted[:, :-1] & counted[:, 1:]
    rows, following = kept[0][:, :-1][predicted], batch["input_ids"][:, 1:][predicted]
    margin = oracle.decision(logits[:, :-1][predicted].numpy(), following.numpy(), "logit_margin")
    lens = Lens.from_name("mutual_information_gaussian", target="logit_margin", layers=layer)
    parts = [{k: v[:2] for k, v in batch.items()}, {k: v[2:] for k, v in batch.items()}]
    got = lens.run(model, parts, progress=False)
    expected = about_targets(rows.numpy(), margin)
    np.testing.assert_allclose(
        got[layer]["mutual_information_gaussian"].numpy(), expected, rtol=1e-7
    )
    assert got.rows[layer] == len(rows) and not got.notes


def class_moments(batches: list[Any], **options: Any) -> ClassMoments:
    model = language_model("Llama")
    lens = Lens.from_name("synergy_gaussian_mmi", layers="model.layers.0.mlp.down_proj")
    aggregator = lens.measure(model, batches, progress=False, **options)
    (found,) = (
        s for s in aggregator.statistics[lens.layers[0]].values() if isinstance(s, ClassMoments)
    )
    return found


def test_next_tokens_are_sorted_into_classes_however_the_stream_is_cut():
    batch = tokens()
    whole = class_moments([batch], token_classes=10)
    assert len(whole.counts) == 10
    every = class_moments([batch])
    assert len(every.counts) > 20
    for number in range(10):
        counts = every.counts[number::10]
        assert int(whole.counts[number]) == int(counts.sum())
        mean = (every.mean[number::10] * counts[:, None]).sum(0) / counts.sum().clamp(min=1)
        torch.testing.assert_close(whole.mean[number], mean, rtol=1e-5, atol=1e-6)
    split = class_moments(
        [{k: v[:2] for k, v in batch.items()}, {k: v[2:] for k, v in batch.items()}],
        token_classes=10,
    )
    assert torch.equal(split.counts, whole.counts)
    torch.testing.assert_close(split.m2, whole.m2, rtol=1e-4, atol=1e-6)


def test_the_notes_say_how_tokens_were_sorted_and_a_plan_counts_them():
    model, lens = language_model("Llama"), Lens.from_name("mi_gaussian", layers="*0.mlp.down_proj")
    result = lens.run(model, [tokens()], progress=False, token_classes=10)
    assert result.notes == [
        "next tokens are the targets, their class the remainder of their number by 10 "
        "(token_classes=)"
    ]
    aggregator = lens.measure(model, [tokens()], progress=False, token_classes=10)
    held = sum(
        t.numel() * t.element_size()
        for found in aggregator.statistics.values()
        for s in found.values()
        for t in s.state().values()
    )
    assert lens.plan(model, tokens(), token_classes=10).bytes == {"cpu": held}
    activity = Lens.from_name("activation_mean").run(model, [tokens()], progress=False)
    assert not any("token_classes" in note for note in activity.notes)


def test_classes_that_were_given_are_never_pooled():
    model, x, _ = classifier(12)
    y = torch.arange(30) % 12
    lens = Lens.from_name("mutual_information_gaussian", layers="0")
    result = lens.run(model, [(x, y)], progress=False, token_classes=4)
    assert_equal(result, lens.run(model, [(x, y)], progress=False))
    assert not result.notes
    with pytest.raises(InvalidValueError, match="token_classes is 1, expected 2 or more"):
        lens.run(model, [(x, y)], progress=False, token_classes=1)
    with pytest.raises(UnknownOptionError, match="did you mean 'token_classes'"):
        lens.run(model, [(x, y)], progress=False, token_clases=4)
