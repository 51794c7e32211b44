"""Fine-tuning: masked weights stay zero, rates by type are those of torch's own groups."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from nodelens.errors import InvalidValueError, LayerNotFoundError, NonFiniteError, ShapeError
from nodelens.interventions import evaluate
from nodelens.pruning.finetune import MULTIPLIERS, finetune
from tests.pruning.networks import UNITS, ffn, images, maps, rows

DOWN = "blocks.0.down"
TRAIN, VALID = rows()[:1], rows()[1:]
FAST = {"epochs": 3, "learning_rate": 0.05, "weight_decay": 0.1}


def unit_mask() -> Tensor:
    return torch.arange(UNITS) % 3 != 0


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_masked_ffn_units_stay_exactly_zero_and_the_others_learn(optimizer):
    model, mask = ffn(), unit_mask()
    state = copy.deepcopy(model.state_dict())
    found = finetune(model, TRAIN, VALID, masks={DOWN: mask}, optimizer=optimizer, **FAST)
    block = found.model.blocks[0]
    for zero in (
        block.gate.weight[~mask], block.up.weight[~mask], block.up.bias[~mask],
        block.down.weight[:, ~mask],
    ):  # fmt: skip
        assert bool((zero == 0).all())
    assert found.best_epoch > 0, "it has learnt something"
    assert not torch.equal(block.gate.weight[mask], model.blocks[0].gate.weight[mask])
    assert bool((block.gate.weight[mask] != 0).all())
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())


def test_masked_weights_are_zero_in_every_forward_pass():
    model, mask = ffn(), torch.rand(UNITS, 6, generator=torch.Generator().manual_seed(1)) > 0.5
    seen: list[Tensor] = []
    model.blocks[0].up.register_forward_pre_hook(
        lambda module, _: seen.append(module.weight.detach().clone())
    )
    masks = {"blocks.0.up": mask}
    finetune(model, TRAIN * 2, VALID, masks=masks, in_place=True, momentum=0.9, **FAST)
    behind = seen[-5:]
    assert len(seen) > 6 and all(bool((w[~mask] == 0).all()) for w in behind)
    assert not torch.equal(behind[0], behind[2])


def test_a_masked_channel_of_a_normed_convolution_is_silent_behind_the_norm():
    model, mask = maps(), torch.arange(8) % 2 == 0
    train, valid = images()[:1], images()[1:]
    found = finetune(model, train, valid, masks={"normed": mask}, **FAST)
    norm = found.model.norm
    assert bool((norm.weight[~mask] == 0).all() and (norm.bias[~mask] == 0).all())
    assert bool((norm.weight[mask] != 0).all())
    assert bool((found.model.normed.weight[~mask] == 0).all())


class Split(nn.Module):
    """The first layer's rows as parameters of their own, for torch to have as groups."""

    def __init__(self, first: nn.Linear, second: nn.Linear) -> None:
        super().__init__()
        self.rows = nn.ParameterList([nn.Parameter(w.clone()) for w in first.weight.detach()])
        self.bias = nn.ParameterList([nn.Parameter(b.clone()) for b in first.bias.detach()])
        self.second = copy.deepcopy(second)

    def forward(self, x: Tensor) -> Tensor:
        y = x @ torch.stack(list(self.rows)).T + torch.stack(list(self.bias))
        return self.second(y.tanh())


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).tanh())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_rates_and_decays_by_type_are_those_of_groups_of_torch(optimizer):
    torch.manual_seed(0)
    model, kinds = Plain().double(), list(MULTIPLIERS)
    split = Split(model.first, model.second)
    groups = [{"params": split.second.parameters(), "lr": 0.05, "weight_decay": 0.05}]
    for i, kind in enumerate(kinds):
        rate, decay = MULTIPLIERS[kind]
        own = [split.rows[i], split.bias[i]]
        groups.append({"params": own, "lr": 0.05 * rate, "weight_decay": 0.05 * decay})
    torch_own = torch.optim.SGD(groups, momentum=0.9) if optimizer == "sgd" else (
        torch.optim.AdamW(groups)
    )  # fmt: skip
    for _ in range(4):
        for x, y in TRAIN:
            torch_own.zero_grad()
            cross_entropy(split(x), y).backward()
            torch_own.step()
    options = {"epochs": 4, "learning_rate": 0.05, "weight_decay": 0.05, "optimizer": optimizer}
    found = finetune(model, TRAIN, list(TRAIN), types={"first": kinds}, **options)
    assert found.best_epoch == 4, "or an earlier epoch would be compared"
    torch.testing.assert_close(found.model.first.weight, torch.stack(list(split.rows)))
    torch.testing.assert_close(found.model.first.bias, torch.stack(list(split.bias)))
    torch.testing.assert_close(found.model.second.weight, split.second.weight)


def test_the_epoch_is_the_one_of_lowest_validation_loss():
    x, y = VALID[0]
    wrong = [(x, (y + 1) % 3)]
    found = finetune(ffn(), [(x, y)], wrong, epochs=3, learning_rate=0.3)
    losses = [epoch.validation.loss for epoch in found.history]
    assert found.best_epoch == losses.index(min(losses)) and len(losses) == 4
    assert evaluate(found.model, wrong).loss == pytest.approx(min(losses))
    assert found.history[0].loss is None and found.history[1].loss > found.history[3].loss
    short = finetune(ffn(), [(x, y)], wrong, epochs=9, learning_rate=0.3, patience=1)
    assert len(short.history) == short.best_epoch + 2


def test_a_seed_gives_the_same_weights_and_draws_nothing_of_the_user():
    x = torch.cat([x for x, _ in rows()])
    y = torch.cat([y for _, y in rows()])
    loader = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)
    models = [ffn(), ffn(), ffn()]
    before = torch.random.get_rng_state()
    one, same, other = (
        finetune(model, loader, VALID, seed=seed, **FAST)
        for model, seed in zip(models, (1, 1, 2), strict=True)
    )
    assert torch.equal(before, torch.random.get_rng_state())
    weights = [found.model.head.weight for found in (one, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_in_place_is_the_model_itself_with_its_modes_and_gradients():
    model = ffn()
    model.head.weight.grad = torch.ones_like(model.head.weight)
    before = model.head.weight.detach().clone()
    found = finetune(model, TRAIN, VALID, in_place=True, **FAST)
    assert found.model is model and not model.training
    assert not torch.equal(model.head.weight, before)
    assert float(model.head.weight.grad.sum()) == model.head.weight.numel()
    assert model.blocks[0].up.weight.grad is None


def test_after_an_exception_the_model_is_as_it_was():
    model = ffn().train()
    state = copy.deepcopy(model.state_dict())
    bad = [TRAIN[0], (TRAIN[0][0] * torch.nan, TRAIN[0][1])]
    with pytest.raises(NonFiniteError, match="epoch 1"):
        finetune(model, bad, VALID, masks={DOWN: unit_mask()}, in_place=True)
    assert model.training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"validation": TRAIN}, InvalidValueError, "one split"),
        ({"train": iter(TRAIN)}, InvalidValueError, "train is a list_iterator"),
        ({"optimizer": "sdg"}, InvalidValueError, "did you mean 'sgd'"),
        ({"epochs": 0}, InvalidValueError, "epochs is 0"),
        ({"learning_rate": -1}, InvalidValueError, "learning_rate is -1"),
        ({"types": {DOWN: ["critcal"] * 10}}, InvalidValueError, "did you mean 'critical'"),
        ({"types": {DOWN: ["critical"] * 3}}, ShapeError, "expected 10"),
        ({"masks": {"blocks.0.dwn": unit_mask()}}, LayerNotFoundError, "blocks.0.down"),
        ({"masks": {DOWN: torch.ones(2, 2)}}, ShapeError, "expected the weight's"),
    ],
)
def test_what_cannot_be_is_refused(change, error, said):
    given = {"train": TRAIN, "validation": VALID, **change}
    with pytest.raises(error, match=said):
        finetune(ffn(), given.pop("train"), given.pop("validation"), **given)
