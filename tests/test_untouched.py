"""A user's model, batches and generators are as they were, whatever was done with the model.

The public checks hold every lens to this; here are the other ways in, and the rarer models.
"""

from __future__ import annotations

import copy
import io
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.data import DataLoader, TensorDataset

from nodelens import CompositeLens, Lens, ModelWrapper
from nodelens.errors import IncompatibleModelError, LayerNotReachedError, NodeLensError
from nodelens.interventions import evaluate
from nodelens.testing.manners import _lived_in, _unchanged
from nodelens.testing.subjects import SUBJECTS
from nodelens.testing.trial import assert_equal

IMAGES = SUBJECTS[0]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def composite() -> Lens:
    names = ("rayleigh_quotient", "taylor_saliency", "gradient_alignment", "average_redundancy")
    return CompositeLens([Lens.from_name(name) for name in names])


def silenced(model: Any, batch: Any) -> Any:
    return evaluate(model, [batch], {"grouped": [0, 1], "twice": [2]})


def ablated(model: Any, batch: Any) -> Any:
    return Lens.from_name("ablation", channels={"output": [0]}).analyse(model, batch)


ACTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "analyse": lambda model, batch: composite().analyse(model, batch),
    "run": lambda model, batch: composite().run(model, [batch] * 2, progress=False),
    "analyse_batched": lambda model, batch: list(composite().analyse_batched(model, [batch])),
    "ablation": ablated,
    "evaluate": lambda model, batch: evaluate(model, [batch]),
    "evaluate silenced": silenced,
    "activations": lambda model, batch: ModelWrapper(model).forward_with_activations(batch[0]),
    "weights": lambda model, batch: ModelWrapper(model).get_layer_weights(),
    "compatible": lambda model, batch: composite().is_compatible(model),
}
EVERY_ACTION = pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS.keys())
PASSES = [name for name in ACTIONS if name not in ("weights", "compatible")]


@EVERY_ACTION
def test_every_way_in_leaves_the_model_as_it_was(action):
    model, batch = _lived_in(IMAGES.model()), IMAGES.batch()
    # The first time a model is met its layers are wrapped; that leaves no hook either.
    with _unchanged(model, batch):
        action(model, batch)
    with _unchanged(model, batch):
        action(model, batch)


class Noisy(nn.Module):
    """Draws from torch's global generator whenever it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Linear(84, 6)
        self.twice = nn.Linear(6, 5)
        self.output = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(x.flatten(1))
        logits: Tensor = self.output(self.twice(x + torch.rand_like(x)))
        return logits


@EVERY_ACTION
def test_a_model_that_draws_random_numbers_leaves_the_generator_as_it_was(action):
    model, batch = Noisy(), IMAGES.batch()
    with _unchanged(model, batch):
        action(model, batch)


@pytest.mark.parametrize("name", ["taylor_saliency", "gradient_alignment"])
def test_gradient_lenses_compute_no_gradient_of_a_parameter(name):
    model, batch, trained = IMAGES.model(), IMAGES.batch(), []
    model.head.register_forward_hook(
        lambda *_: trained.append([p.requires_grad for p in model.parameters()])
    )
    for parameter in model.parameters():
        parameter.register_hook(lambda gradient: trained.append("a gradient was computed"))
    Lens.from_name(name).run(model, [batch] * 2, progress=False)
    assert trained[1:] == [[False] * len(list(model.parameters()))] * 2


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_model_that_fails_half_way_is_left_as_it_was(name, error):
    model, batch, action = _lived_in(IMAGES.model()), IMAGES.batch(), ACTIONS[name]

    def fail(*_: Any) -> None:
        raise error("planted")

    action(model, batch)
    for layer in ("grouped", "twice", "head"):
        hook = model.get_submodule(layer).register_forward_hook(fail)
        with _unchanged(model, batch), pytest.raises(error, match="planted"):
            action(model, batch)
        hook.remove()
    with _unchanged(model, batch):
        action(model, batch)


@pytest.mark.parametrize(
    "batch",
    [
        torch.zeros(3, 5),
        (torch.zeros(3, 2, 7, 6), torch.zeros(4, dtype=torch.long)),
        (torch.zeros(3, 2, 7, 6), torch.full((3,), 77)),
        torch.full((3, 2, 7, 6), torch.nan),
        torch.zeros(3, 2, 7, 6),
        (torch.zeros(3, 2, 7, 6), {"loss": lambda outputs, targets: "no tensor"}),
        (torch.zeros(3, 2, 7, 6), {"los": None}),
    ],
    ids=["shape", "length", "class", "NaN", "no targets", "loss", "option"],
)
def test_a_bad_batch_leaves_the_model_as_it_was(batch):
    model = _lived_in(IMAGES.model())
    with _unchanged(model, []), pytest.raises((NodeLensError, RuntimeError)):
        composite().analyse(model, batch)


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 12)
        self.norm = nn.BatchNorm1d(12)
        self.drop = nn.Dropout(0.4)
        self.last = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.drop(torch.relu(self.norm(self.first(x)))))
        return logits


def trained(measure: bool) -> tuple[dict[str, Tensor], list[float]]:
    """Weights and draws after a few steps of training, with or without looks in between."""
    torch.manual_seed(7)
    random.seed(7)
    model = Dropping()
    data = TensorDataset(torch.randn(40, 6), torch.randint(0, 3, (40,)))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
    draws = []
    for x, y in DataLoader(data, batch_size=8, shuffle=True):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        if measure:
            composite().run(model, DataLoader(data, batch_size=16, shuffle=True), progress=False)
            evaluate(model, [(x, y)], {"first": [0, 3]})
        optimiser.step()
        draws += [torch.rand(1).item(), random.random(), np.random.rand()]  # noqa: NPY002
    return model.state_dict(), draws[::3] + draws[1::3]


def test_training_goes_on_as_if_nobody_had_looked():
    (weights, draws), (plain_weights, plain_draws) = trained(True), trained(False)
    assert draws == plain_draws
    for name, value in plain_weights.items():
        assert torch.equal(weights[name], value), name


def test_parametrised_weights_are_read_without_training_them():
    model = nn.Sequential(
        parametrizations.spectral_norm(nn.Linear(4, 6)),
        nn.ReLU(),
        parametrizations.weight_norm(nn.Linear(6, 3)),
    ).train()
    batch = torch.randn(9, 4), torch.randint(0, 3, (9,))
    with _unchanged(model, batch):
        result = composite().analyse(model, batch)
        ModelWrapper(model).get_layer_weights()
        silencing = {"0": [1], "2": [0]}
        evaluate(model, [batch], silencing)
    model.eval()
    assert_equal(composite().analyse(model, batch), result)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_callers_gradient_mode_changes_no_score(mode):
    model, batch = IMAGES.model(), IMAGES.batch()
    expected = composite().analyse(model, batch)
    with mode():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        assert_equal(composite().analyse(model, batch), expected)
        assert evaluate(model, [batch], {"head": [0]}).rows == 12
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before


def test_training_mode_changes_no_score():
    model, batch = IMAGES.model(), IMAGES.batch()
    assert_equal(
        composite().analyse(model.train(), batch),
        composite().analyse(copy.deepcopy(model).eval(), batch),
    )


def test_inputs_that_carry_gradients_keep_them():
    model, (x, y) = IMAGES.model(), IMAGES.batch()
    x = x.requires_grad_()
    with _unchanged(model, [x, y]):
        composite().analyse(model, (x, y))
    assert x.is_leaf and x.grad is None


def test_a_graph_of_the_user_survives():
    model, (x, y) = IMAGES.model(), IMAGES.batch()
    loss = nn.functional.cross_entropy(model(x), y)
    composite().analyse(model, (x, y))
    loss.backward()
    expected = IMAGES.model()
    nn.functional.cross_entropy(expected(x), y).backward()
    for mine, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None)
        assert mine.grad is None or torch.equal(mine.grad, theirs.grad)


def test_a_model_can_be_copied_and_saved_afterwards():
    model, batch = IMAGES.model(), IMAGES.batch()
    expected = composite().analyse(model, batch)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        model.head.weight.zero_()
    assert_equal(composite().analyse(twin, batch), expected)
    buffer = io.BytesIO()
    torch.save(twin.state_dict(), buffer)
    buffer.seek(0)
    fresh = IMAGES.model()
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    assert_equal(composite().analyse(fresh, batch), expected)


def test_a_model_can_be_exported_afterwards_and_keeps_a_forward_of_its_own():
    model, x = Dropping().eval(), torch.randn(5, 6)
    plain = model.last.forward
    model.last.forward = lambda x: plain(x) * 2
    own, wrapper = model.last.forward, ModelWrapper(model)
    lens = Lens.from_name("activation_mean")
    expected = lens.analyse(wrapper, x)
    assert model.last.forward is own
    exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(exported(x), model(x))
    del model.last.forward
    with pytest.raises(LayerNotReachedError):  # the wrapper knows another forward
        lens.analyse(wrapper, x)
    torch.testing.assert_close(
        expected["last"]["activation_mean"], 2 * lens.analyse(model, x)["last"]["activation_mean"]
    )


def test_a_model_without_weights_yet_is_refused_and_stays_without():
    model = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(IncompatibleModelError, match="layer '0' has no weights yet: run the model"):
        composite().analyse(model, torch.randn(2, 4))
    assert model[0].has_uninitialized_params()


def test_foreign_hooks_still_run_and_see_what_they_saw():
    model, batch = IMAGES.model(), IMAGES.batch()
    seen: list[Tensor] = []
    model.twice.register_forward_hook(lambda module, args, output: seen.append(output.detach()))
    model(batch[0])
    before = [tensor.clone() for tensor in seen]
    seen.clear()
    model.eval()
    composite().analyse(model, batch)
    seen.clear()
    model.train()
    model(batch[0])
    assert len(seen) == len(before) == 2


def test_a_hook_that_changes_an_output_is_seen_by_the_layers_behind():
    model, batch = IMAGES.model(), IMAGES.batch()
    plain = Lens.from_name("activation_variance").analyse(model, batch)
    hook = model.output.register_forward_hook(lambda module, args, output: output * 0 + 3.0)
    changed = Lens.from_name("activation_variance").analyse(model, batch)
    # What a layer itself returned is read before hooks on it have their turn.
    assert torch.equal(
        changed["output"]["activation_variance"], plain["output"]["activation_variance"]
    )
    assert float(changed["head"]["activation_variance"].max()) < 1e-10
    hook.remove()
    assert_equal(Lens.from_name("activation_variance").analyse(model, batch), plain)


def test_activations_are_what_layers_returned_before_anything_worked_in_place():
    model, batch = IMAGES.model().eval(), IMAGES.batch()
    expected: dict[str, Tensor] = {}
    for name, module in model.named_modules():

        def keep(module: nn.Module, args: Any, output: Any, name: str = name) -> None:
            first = output[0] if isinstance(output, tuple) else output
            expected.setdefault(name, first.detach().clone())

        hook = module.register_forward_hook(keep)
    del hook
    model(batch[0])
    outputs, activations = ModelWrapper(IMAGES.model()).forward_with_activations(batch[0])
    assert set(activations) == {"stem", "grouped", "state", "twice", "output", "head"}
    assert isinstance(activations["state"], tuple)
    for name, value in activations.items():
        first = value[0] if isinstance(value, tuple) else value
        assert torch.equal(first, expected[name]), name
    assert torch.equal(outputs, expected["head"])


def test_threads_take_turns_on_one_model():
    model, batch = IMAGES.model(), IMAGES.batch()
    expected = composite().analyse(model, batch)
    results: list[Any] = []

    def measure() -> None:
        results.append(composite().run(model, [batch] * 3, progress=False))

    threads = [threading.Thread(target=measure) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    reference = composite().run(model, [batch] * 3, progress=False)
    for result in results:
        assert_equal(result, reference)
    assert list(expected) == list(reference)
    assert not any(parameter.grad is not None for parameter in model.parameters())
