"""Every kind of batch in its one form, and what of it counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from nodelens import CompositeLens, Lens, LensResult
from nodelens.data import as_batch
from nodelens.errors import InvalidValueError, ShapeError, UnknownOptionError
from nodelens.interventions import evaluate
from tests.model.families import bert, language_model, text

NAMES = ["activation_mean", "mutual_information_gaussian", "taylor_saliency"]
IGNORED = -100


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.second = nn.Linear(3, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, a: Tensor, b: Tensor, scale: float = 1.0) -> Tensor:
        return self.head(scale * torch.tanh(self.first(a) + self.second(b)))


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def data(rows: int = 20) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(8)
    x = torch.randn((rows, 4), generator=generator)
    return x, torch.randint(0, 3, (rows,), generator=generator)


def run(model: nn.Module, batches: Any, names: list[str] | None = None, **options: Any):
    lens = CompositeLens([Lens.from_name(name) for name in names or NAMES])
    return lens.run(model, batches, progress=False, **options)


def assert_close(found: LensResult, wanted: LensResult) -> None:
    assert set(found) == set(wanted) and found.rows == wanted.rows
    for layer, scores in wanted.items():
        assert set(found[layer]) == set(scores)
        for name, values in scores.items():
            torch.testing.assert_close(found[layer][name], values, rtol=1e-5, atol=1e-7)


def test_inputs_and_targets_from_a_data_loader():
    model, (x, y) = network(), data()
    whole = run(model, [(x, y)])
    for loader in (
        DataLoader(TensorDataset(x, y), batch_size=6),
        DataLoader(TensorDataset(x, y), batch_size=6, shuffle=True),
        [(x[:9].numpy(), y[:9].numpy()), (x[9:], y[9:].tolist())],
        [[x[:9], y[:9]], (x[9:], {"targets": y[9:]})],
    ):
        assert_close(run(model, loader), whole)


def test_a_data_loader_with_inputs_alone_gives_lists_of_one():
    model, (x, _) = network(), data()
    loader = DataLoader(TensorDataset(x), batch_size=6)
    assert_close(run(model, loader, ["activation_mean"]), run(model, [x], ["activation_mean"]))


def test_drawing_a_shuffled_loader_leaves_the_global_generator_alone():
    model, (x, y) = network(), data()
    loader = DataLoader(TensorDataset(x, y), batch_size=6, shuffle=True)
    before = torch.get_rng_state()
    run(model, loader)
    evaluate(model, loader)
    assert torch.equal(torch.get_rng_state(), before)
    for _ in Lens.from_name("activation_mean").analyse_batched(model, loader):
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.get_rng_state(), before)


def test_draws_of_a_loader_go_on_from_batch_to_batch():
    model, (x, _) = network(), data()

    def noisy() -> Iterator[Tensor]:
        for _ in range(3):
            yield x + torch.randn_like(x)

    lens, whole = Lens.from_name("activation_mean"), Lens.from_name("activation_mean").aggregator()
    torch.manual_seed(5)
    for statistics in lens.analyse_batched(model, noisy()):
        torch.rand(7)  # the caller's own draws change nothing
        whole.update(statistics)
    torch.manual_seed(5)
    assert_close(whole.result(), run(model, list(noisy()), ["activation_mean"]))


def test_a_generator_of_unknown_length_is_drawn_once():
    model, (x, y) = network(), data()
    drawn: list[int] = []

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, 20, 5):
            drawn.append(start)
            yield x[start : start + 5], y[start : start + 5]

    assert_close(run(model, batches()), run(model, [(x, y)]))
    assert drawn == [0, 5, 10, 15]


def test_progress_of_a_generator_is_reported():
    told: list[tuple[int, int]] = []
    model, (x, _) = network(), data()
    lens = Lens.from_name("activation_mean")
    lens.run(model, iter(x.split(8)), progress=lambda batches, rows: told.append((batches, rows)))
    assert told == [(1, 8), (2, 16), (3, 20)]


def test_several_inputs_go_in_a_tuple_of_their_own_or_one_by_one():
    model, (x, y) = TwoInputs(), data()
    b = torch.randn(20, 3)
    lens = Lens.from_name("activation_mean")
    spread, packed = lens.analyse(model, x, b), lens.analyse(model, ((x, b), y))
    assert_close(spread, packed)
    by_name = lens.analyse(model, {"a": x, "b": b})
    assert_close(by_name, packed)
    assert_close(
        run(model, [((x, b), y)]), run(model, [((x[:7], b[:7]), y[:7]), ((x[7:], b[7:]), y[7:])])
    )


def test_options_hold_for_their_own_batch_only():
    model = TwoInputs()
    a, b = torch.randn(10, 4), torch.randn(10, 3)
    lens = Lens.from_name("activation_mean", layers=["head"])
    scaled = ((a, b), {"model_kwargs": {"scale": 100.0}})
    options = dict(scaled[1])
    first, second = lens.analyse_batched(model, [scaled, ((a, b), {})])
    plain = next(lens.analyse_batched(model, [((a, b), {})]))
    (key,) = (key for key in plain["head"] if key != "layer")
    assert torch.equal(second["head"][key].total, plain["head"][key].total)
    assert not torch.allclose(first["head"][key].total, plain["head"][key].total)
    assert scaled[1] == options, "the batch's own options are not written to"


def test_a_loss_of_one_batch_is_not_the_loss_of_the_next():
    model, (x, y) = network(), data()
    lens = Lens.from_name("taylor_saliency")
    own = (x, {"targets": y, "loss": lambda output, targets: 1000 * output.sum()})
    _, second = lens.analyse_batched(model, [own, (x, y)])
    (alone,) = lens.analyse_batched(model, [(x, y)])
    for layer in alone:
        (key,) = (key for key in alone[layer] if key != "layer")
        assert torch.equal(second[layer][key].absolute, alone[layer][key].absolute)


def test_options_of_a_run_hold_for_every_batch_that_does_not_say_otherwise():
    model, (x, y) = network(), data()
    lens = Lens.from_name("taylor_saliency")
    squared = nn.functional.one_hot(y, 3).float()
    by_run = lens.run(model, [(x, squared)], loss="mse", progress=False)
    by_batch = lens.run(model, [(x, {"targets": squared, "loss": "mse"})], progress=False)
    assert_close(by_run, by_batch)


def test_an_option_that_no_batch_has_is_an_error():
    x, y = data()
    with pytest.raises(UnknownOptionError, match=r"batch 0: .*'target' \(did you mean 'targets'"):
        Lens.from_name("activation_mean").analyse(network(), (x, {"target": y}))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((torch.randn(20, 4), torch.zeros(7)), r"targets of shape \(7,\) for a batch of 20"),
        ((torch.randn(20, 4), torch.tensor(1)), r"targets of shape \(\) for a batch of 20"),
        (
            (torch.randn(20, 4), {"mask": torch.tensor([[1, 0]])}),
            r"mask of shape \(1, 2\) for a batch of 20",
        ),
        (
            {"input": torch.randn(20, 4), "labels": torch.zeros(3).long()},
            r"labels of shape \(3,\) for a batch of 20",
        ),
    ],
    ids=["targets", "one target", "mask", "labels"],
)
def test_another_length_is_an_error(given: Any, message: str):
    with pytest.raises(ShapeError, match=message):
        as_batch(given)


def test_a_mask_that_does_not_fit_the_tokens_of_a_layer_is_an_error():
    mask = torch.tensor([[1, 1, 0]]).expand(4, 3)
    batch = (torch.randn(4, 5, 4), {"mask": mask})
    with pytest.raises(ShapeError, match=r"layer '0' has 20 rows for a mask of \(4, 3\)"):
        Lens.from_name("activation_mean").analyse(network(), batch)


@pytest.mark.parametrize("batch", [[], [1, 2, 3], ()], ids=str)
def test_what_is_no_batch_is_an_error(batch: Any):
    with pytest.raises(InvalidValueError, match="a batch of"):
        as_batch(batch)
    with pytest.raises(InvalidValueError, match="no batch was given"):
        as_batch()


def test_a_mask_of_ones_changes_nothing():
    x, _ = data()
    mask = torch.ones(20, 7)
    assert as_batch((x, {"mask": mask})).mask is None


def text_scores(model: nn.Module, batches: list[Any]) -> LensResult:
    return run(model, batches, ["activation_mean", "taylor_saliency", "rayleigh_quotient"])


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_never_counts_on_either_side(side: str):
    """One text at a time needs no padding: what that gives is what padded batches must give."""
    model = language_model("Llama")
    lengths = [7, 3, 9, 5]
    padded = text(lengths, side=side)
    alone = [
        {"input_ids": ids[kept.bool()][None]}
        for ids, kept in zip(padded["input_ids"], padded["attention_mask"], strict=True)
    ]
    assert_close(text_scores(model, [padded]), text_scores(model, alone))
    dense, cut = evaluate(model, [padded]), evaluate(model, alone)
    assert dense.rows == cut.rows == sum(lengths) - len(lengths)
    assert dense.loss == pytest.approx(cut.loss, rel=1e-5) and dense.accuracy == cut.accuracy


def test_what_stands_in_the_padding_does_not_matter():
    model = language_model("Llama")
    batch = text([7, 3, 9])
    other = dict(batch)
    other["input_ids"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, 17)
    assert_close(text_scores(model, [other]), text_scores(model, [batch]))
    labelled = {**other, "labels": other["input_ids"].clone()}
    assert_close(text_scores(model, [labelled]), text_scores(model, [batch]))
    assert evaluate(model, [labelled]) == evaluate(model, [batch])


def test_a_mask_among_positional_inputs_is_found_by_its_name():
    model, batch = language_model("Llama"), text([7, 3, 9])
    lens = Lens.from_name("activation_mean")
    spread = lens.analyse(model, batch["input_ids"], batch["attention_mask"])
    assert_close(spread, lens.analyse(model, batch))


def test_labels_say_what_is_predicted():
    model, batch = language_model("Llama"), text([7, 3, 9])
    ids, mask = batch["input_ids"], batch["attention_mask"].bool()
    assert_close(
        text_scores(model, [{**batch, "labels": ids.masked_fill(~mask, IGNORED)}]),
        text_scores(model, [batch]),
    )
    half = ids.masked_fill(~mask, IGNORED)
    half[:, :3] = IGNORED
    with torch.no_grad():
        expected = model(**batch, labels=half).loss
    found = evaluate(model, [{**batch, "labels": half}])
    assert found.rows == int((half[:, 1:] != IGNORED).sum())
    assert found.loss == pytest.approx(float(expected), rel=1e-5)


def test_labels_of_an_encoder_are_not_shifted():
    model = bert("BertForTokenClassification", num_labels=3)
    batch = text([7, 3, 9])
    labels = torch.randint(0, 3, batch["input_ids"].shape)
    labels = labels.masked_fill(batch["attention_mask"] == 0, IGNORED)
    with torch.no_grad():
        expected = model(**batch, labels=labels).loss
    found = evaluate(model, [{**batch, "labels": labels}])
    assert (found.rows, found.loss) == (19, pytest.approx(float(expected), rel=1e-5))


def test_a_target_a_text_is_that_of_all_its_tokens():
    model = bert("BertForSequenceClassification", num_labels=3)
    batch, labels = text([7, 3, 9]), torch.tensor([0, 2, 1])
    lens = Lens.from_name("mutual_information_gaussian", layers=["*intermediate.dense"])
    inside = lens.analyse(model, {**batch, "labels": labels})
    assert_close(inside, lens.analyse(model, (batch, labels)))
    each = labels[:, None].expand(batch["input_ids"].shape)
    assert_close(inside, lens.analyse(model, (batch, {"targets": each})))
    assert set(inside.rows.values()) == {19}


def test_numpy_batches_are_tensors():
    x = np.ones((3, 4), dtype=np.float32)
    batch = as_batch((x, np.array([0, 1, 2])))
    assert isinstance(batch.args[0], Tensor) and batch.targets is not None
    assert batch.targets.tolist() == [0, 1, 2]
