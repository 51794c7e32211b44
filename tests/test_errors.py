"""Bad input: the class of every error, the built-in it also is, and what its text says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nodelens import Aggregator, CompositeLens, Lens, ModelWrapper, NodeLensError, get_metric
from nodelens.errors import (
    IncompatibleModelError,
    InvalidValueError,
    LayerNotFoundError,
    MergeError,
    MissingLossError,
    MissingTargetsError,
    NonFiniteError,
    OutputError,
    ShapeError,
    TooFewRowsError,
    UnknownNameError,
    UnknownOptionError,
    nearest,
)
from nodelens.interventions import evaluate

Attempt = Callable[[nn.Module], object]


def network() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def x(rows: int = 20) -> Tensor:
    return torch.randn((rows, 4), generator=torch.Generator().manual_seed(3))


def y(rows: int = 20) -> Tensor:
    return torch.arange(rows) % 3


def broken() -> Tensor:
    values = x()
    values[3, 1] = torch.nan
    values[4, 0] = torch.inf
    return values


def analyse(name: str, batch: Any, **options: Any) -> Attempt:
    return lambda model: Lens.from_name(name).analyse(model, batch, **options)


def run(name: str, *batches: Any, **options: Any) -> Attempt:
    return lambda model: Lens.from_name(name).run(model, [*batches], progress=False, **options)


def make(name: str, **options: Any) -> Attempt:
    return lambda _: Lens.from_name(name, **options)


def select(**options: Any) -> Attempt:
    return lambda model: Lens.from_name("activation_mean", **options).analyse(model, x())


NAMES: list[tuple[Attempt, str]] = [
    (make("rayleigh_quotiet"), "unknown lens 'rayleigh_quotiet' .did you mean 'rayleigh_quotient'"),
    (make("zzzz"), "unknown lens 'zzzz'; there are ablation, activation_cosine_similarity, "),
    (lambda _: get_metric("ablation", channels={"0": [0]}), "lens 'ablation' is not a metric"),
    (
        lambda model: select()(model)["0"]["activation_men"],
        "the layer has no score 'activation_men' .did you mean 'activation_mean'.*; it has activ",
    ),
    (lambda model: select()(model)["fc1"], "no layer 'fc1'; it has 0, 2"),
    (
        lambda model: select()(model).scores("activation_men"),
        "no score 'activation_men' .did you mean 'activation_mean'",
    ),
]
OPTIONS: list[tuple[Attempt, str]] = [
    (make("rq", relatve=True), "'rq' has no option 'relatve' .did you mean 'relative'.*regulariz"),
    (run("activation_mean", x(), progess=True), "no option 'progess'.*did you mean 'progress'"),
    (
        analyse("delta_alignment", x(), initial_weigths={}),
        "'delta_alignment' has no option 'initial_weigths'.*did you mean 'initial_weights'",
    ),
    (
        analyse("activation_mean", (x(), {"target": y()})),
        "lens 'activation_mean', batch 0: unknown batch option 'target' .did you mean 'targets'",
    ),
]
LAYERS: list[tuple[Attempt, str]] = [
    (select(layers=["fc1"]), "lens 'activation_mean': layer 'fc1' matches nothing.*'0', '2'"),
    (select(layers=["0", "1"]), "layer '1' matches nothing.*the layers are '0', '2'"),
    (select(pattern="conv"), "pattern 'conv' matches nothing.*the layers are '0', '2'"),
    (lambda model: ModelWrapper(model, ["head"]), "no layer 'head'; it has 0, 2"),
    (
        lambda model: evaluate(model, [(x(), y())], {"4": [0]}),
        "batch 0: no layer '4' to silence.*the layers are 0, 2",
    ),
]
MODELS: list[tuple[Attempt, str]] = [
    (lambda _: select()("model.pt"), "a str is not a model; expected a torch.nn.Module"),  # type: ignore[arg-type]
    (
        lambda _: select()(nn.Sequential(nn.ReLU())),
        "lens 'activation_mean' cannot score Sequential: it has no layer this lens can score",
    ),
    (run("scar_taylor", (x(), y())), "cannot score Sequential: it has no feed-forward block"),
    (lambda _: CompositeLens(["rq"]), "a composite is made of lenses, got str"),  # type: ignore[list-item]
]
SHAPES: list[tuple[Attempt, str]] = [
    (
        analyse("activation_mean", torch.randn(20, 5)),
        r"lens 'activation_mean', batch 0: .*layer '0' has shape \(20, 5\), expected 4 channels",
    ),
    (
        run("activation_mean", x(), torch.randn(20, 5)),
        r"lens 'activation_mean', batch 1: .*layer '0' has shape \(20, 5\), expected 4 channels",
    ),
    (
        lambda _: select()(nn.Sequential(nn.Linear(4, 6), nn.Linear(5, 3))),
        r"batch 0: the input of layer '1' has shape \(20, 6\), expected 5 channels",
    ),
    (
        lambda _: Lens.from_name("rq").analyse(nn.Conv2d(3, 4, 3), torch.randn(2, 2, 8, 8)),
        r"layer 'model' has shape \(2, 2, 8, 8\), expected 3 channels",
    ),
    (
        lambda model: evaluate(model, [(x(), y()), (torch.randn(20, 5), y())]),
        r"batch 1: the input of layer '0' has shape \(20, 5\), expected 4 channels",
    ),
    (
        analyse("taylor_saliency", (x(), y(7))),
        r"lens 'taylor_saliency', batch 0: targets of shape \(7,\) for a batch of 20",
    ),
    (
        run("mi_gaussian", (x(), y()), (x(), y(7))),
        r"lens 'mutual_information_gaussian', batch 1: targets of shape \(7,\) for a batch of 20",
    ),
    (
        lambda _: Lens.from_name("mi_gaussian").analyse(
            nn.Conv2d(3, 4, 1), (torch.randn(9, 3, 5, 5), torch.zeros(9, 5, 5).long())
        ),
        r"layer 'model' has 9 rows for targets of shape \(9, 5, 5\), expected one target",
    ),
    (
        analyse("delta_alignment", x(), initial_weights={"0.weight": torch.zeros(3, 3)}),
        r"initial weight of layer '0' has rows \(3, 3\), expected \(6, 4\)",
    ),
    (
        lambda _: get_metric("mi_gaussian").compute(outputs=x(), targets=y(7)),
        "7 targets for 20 rows",
    ),
]
ROWS: list[tuple[Attempt, str]] = [
    (
        analyse("activation_mean", x(0)),
        "lens 'activation_mean': layer '0': no row seen, expected at least 1",
    ),
    (
        analyse("taylor_saliency", (x(0), y(0))),
        "lens 'taylor_saliency': layer '0': no row seen",
    ),
    (
        analyse("rayleigh_quotient", x(1)),
        "lens 'rayleigh_quotient': layer '0': one row seen, expected at least 2",
    ),
    (analyse("activation_kurtosis", x(1)), "one row seen, expected at least 2"),
    (analyse("average_redundancy", x(1)), "one row seen, expected at least 2"),
    (analyse("synergy_gaussian_mmi", (x(2), y(2))), "2 rows seen, expected at least 3"),
]
NUMBERS: list[tuple[Attempt, str]] = [
    (
        run("rayleigh_quotient", x(), broken()),
        "lens 'rayleigh_quotient', batch 1: layer '0': 1 NaN and 1 infinite values among 80 in its"
        " input",
    ),
    (
        run("activation_mean", x(), x(), broken()),
        "lens 'activation_mean', batch 2: layer '0': .* NaN .* values among 120 in its output",
    ),
    (run("taylor_saliency", (x(), y()), (broken(), y())), "lens 'taylor_saliency', batch 1: "),
    (
        lambda model: evaluate(model, [(x(), y()), (broken(), y())]),
        "batch 1: the loss of 20 predictions is nan",
    ),
    (
        lambda _: get_metric("activation_mean").compute(outputs=broken()),
        "1 NaN and 1 infinite values among 80",
    ),
]
TARGETS: list[tuple[Attempt, str]] = [
    (
        analyse("mi_gaussian", x()),
        "lens 'mutual_information_gaussian', batch 0: layer '0': targets are needed",
    ),
    (analyse("taylor_saliency", x()), "lens 'taylor_saliency', batch 0: a loss needs targets"),
    (analyse("taylor_saliency", (x(), y() + 2)), "class number 4 for 3 outputs, expected 0 to 2"),
    (analyse("taylor_saliency", (x(), y() - 1)), "class number -1 for 3 outputs, expected 0 to 2"),
    (analyse("mi_gaussian", (x(), y() - 1)), "class numbers start at 0, got -1"),
    (
        analyse("synergy_gaussian_mmi", (x(), torch.randn(20))),
        "batch 0: .*class numbers are needed .*got torch.float32 of shape",
    ),
    (analyse("delta_alignment", x()), "lens 'delta_alignment' needs initial_weights="),
    (
        analyse("delta_alignment", x(), initial_weights={"0.weight": torch.zeros(6, 4)}),
        "batch 0: layer '2' has no initial weights",
    ),
    (analyse("delta_alignment", x(), initial_weights=3), "initial_weights is a int, expected"),
]
LOSSES: list[tuple[Attempt, str]] = [
    (
        analyse("taylor_saliency", (x(), y()), loss="crossentropy"),
        "batch 0: unknown loss 'crossentropy' .did you mean 'cross_entropy'",
    ),
    (
        analyse("taylor_saliency", (x(), y()), loss=lambda output, targets: 3),
        "the loss returned int, expected a float tensor",
    ),
    (
        analyse("taylor_saliency", (x(), torch.randn(20, 2))),
        r"no loss for outputs of shape \(20, 3\) and numeric targets of shape \(20, 2\)",
    ),
    (
        analyse("taylor_saliency", (x(), y().float())),
        r"targets of shape \(20,\): integers are class numbers \(targets.long\(\)\), floats are",
    ),
]
VALUES: list[tuple[Attempt, str]] = [
    (select(pattern="("), r"pattern '\(' is not a regular expression"),
    (make("rq", spatial="unfolded"), "spatial is 'unfolded' .did you mean 'unfold'.*patchwise"),
    (make("rq", regularization=-1), "regularization is -1, expected 0 or more"),
    (make("taylor_saliency", mode="abs"), "mode is 'abs'.*expected one of abs_mean"),
    (make("gradient_alignment", rule="hebb"), "rule is 'hebb' .did you mean 'hebbian'"),
    (make("pairwise_redundancy_gaussian", partners="some"), "partners is 'some', expected one of"),
    (make("pairwise_redundancy_gaussian", k=0), "k is 0, expected 1 or more"),
    (make("mi_gaussian", reference="pc2"), "reference is 'pc2', expected one of targets, pc1"),
    (make("activation_mean", site="weight"), "site is 'weight', expected 'input' or 'output'"),
    (make("activation_outlier_index", q=1.5), "q is 1.5, expected a number from 0 to 1"),
    (make("activation_sparsity", eps=-1), "eps is -1, expected 0 or more"),
    (make("weight_magnitude", norm=3), "norm is 3, expected 1 or 2"),
    (make("ablation", channels={}), "no channels to silence"),
    (run("rq"), "lens 'rayleigh_quotient' has seen no batch yet"),
    (analyse("rq", [x(), y(), y()]), "batch 0: a batch of 3 parts"),
    (analyse("rq", "some text"), "a batch of text needs a tokenizer"),
    (lambda model: Lens.from_name("rq").analyse(model), "no batch was given"),
    (lambda _: CompositeLens([]), "a composite of no lenses measures nothing"),
    (
        lambda _: CompositeLens([Lens.from_name("rq"), Lens.from_name("rq")]),
        "has 'rayleigh_quotient' twice with the same options",
    ),
    (
        lambda _: CompositeLens([Lens.from_name("ablation", channels={"0": [0]})]),
        "lens 'ablation' edits activations, so it cannot share a pass",
    ),
    (lambda _: get_metric("rq").compute(inputs=x()), "lens 'rayleigh_quotient' needs outputs="),
]
FILES: list[tuple[Attempt, str]] = [
    (lambda _: Aggregator.load("no/such/file"), "cannot read 'no/such/file'"),
]
MERGES: list[tuple[Attempt, str]] = [
    (
        lambda _: (
            Lens.from_name("rq")
            .aggregator()
            .merge(Lens.from_name("rq", spatial="gap").aggregator())
        ),
        "cannot merge RayleighQuotient.* into RayleighQuotient.*different things",
    ),
]

ERRORS: list[tuple[type[NodeLensError], type[Exception], list[tuple[Attempt, str]]]] = [
    (UnknownNameError, KeyError, NAMES),
    (UnknownOptionError, TypeError, OPTIONS),
    (LayerNotFoundError, ValueError, LAYERS),
    (IncompatibleModelError, ValueError, MODELS),
    (ShapeError, ValueError, SHAPES),
    (TooFewRowsError, ValueError, ROWS),
    (NonFiniteError, ValueError, NUMBERS),
    (MissingTargetsError, ValueError, TARGETS),
    (MissingLossError, ValueError, LOSSES),
    (InvalidValueError, ValueError, VALUES),
    (MergeError, ValueError, MERGES),
    (OutputError, OSError, FILES),
]
CASES = [
    pytest.param(error, builtin, attempt, message, id=f"{error.__name__}-{number}")
    for error, builtin, attempts in ERRORS
    for number, (attempt, message) in enumerate(attempts)
]


@pytest.mark.parametrize(("error", "builtin", "attempt", "message"), CASES)
def test_bad_input_gets_a_clear_error_and_changes_nothing(
    error: type[NodeLensError], builtin: type[Exception], attempt: Attempt, message: str
):
    model = network().train()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with pytest.raises(error, match=message) as caught:
        attempt(model)
    assert type(caught.value) is error and isinstance(caught.value, builtin)
    # A KeyError shows the repr of its argument unless it is told otherwise.
    assert str(caught.value) == caught.value.args[0] and "\\n" not in str(caught.value)
    same(model, before)


def same(model: nn.Module, before: dict[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) and parameter.requires_grad
        assert (parameter.grad is None) == (name != "0.weight")
    assert torch.equal(model[0].weight.grad, torch.ones(6, 4))
    assert all(module.training for module in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_lens_works_after_every_error():
    model = network()
    expected = select()(model)
    for _, _, attempts in ERRORS:
        for attempt, _ in attempts:
            with pytest.raises(NodeLensError):
                attempt(model)
    again = select()(model)
    for layer, scores in expected.items():
        assert torch.equal(again[layer]["activation_mean"], scores["activation_mean"])


def test_an_error_of_the_model_itself_stays_what_it_is():
    class Refusing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("not today")

    with pytest.raises(RuntimeError, match="not today"):
        select()(Refusing())


def test_an_error_of_the_model_that_is_no_fault_of_the_call_stays_what_it_is():
    class Mistaken(Tokens):
        def forward(self, ids: Tensor) -> Tensor:
            return len(3)  # type: ignore[arg-type]

    with pytest.raises(TypeError, match="has no len"):
        select()(Mistaken())


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(5, 4), nn.Linear(4, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.words(ids))


UNFIT: list[tuple[Callable[[], nn.Module], list[Any], str]] = [
    (
        network,
        [x().double()],
        "batch 0: the input of layer '0' is torch.float64, expected torch.float32",
    ),
    (
        network,
        [x(), x().double().numpy()],
        "batch 1: the input of layer '0' is torch.float64, expected torch.float32",
    ),
    (lambda: network().double(), [x()], "is torch.float32, expected torch.float64"),
    (
        Tokens,
        [torch.zeros(2, 3).long(), torch.full((2, 3), 7)],
        r"batch 1: layer 'words' .Embedding. cannot take an input of shape .2, 3. and torch.int",
    ),
    (Tokens, [torch.zeros(2, 3)], "layer 'words' .Embedding. cannot take an input of .*float32"),
    (
        Tokens,
        [{"input_ids": torch.zeros(2, 3).long()}],
        "batch 0: Tokens takes .ids., and the batch does not fit: missing a required argument",
    ),
    (
        lambda: nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1)),
        [x()],
        r"batch 0: layer '0' .BatchNorm2d. cannot take an input of shape \(20, 4\)",
    ),
    (
        lambda: nn.Conv2d(4, 3, 1),
        [x()],
        r"shape \(20, 4\), expected 4 axes: batch, channels and 2 of space",
    ),
    (
        network,
        [((x(), y()), {})],
        "too many positional arguments; several arguments are all inputs of the model, targets go",
    ),
]


@pytest.mark.parametrize(("model", "batches", "message"), UNFIT)
def test_an_input_that_a_layer_cannot_take_is_told_with_lens_batch_and_layer(
    model: Callable[[], nn.Module], batches: list[Any], message: str
):
    made = model()
    with pytest.raises(InvalidValueError, match=f"^lens 'activation_mean', .*{message}"):
        Lens.from_name("activation_mean").run(made, batches, progress=False)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in made.modules())


def test_what_fails_for_want_of_memory_is_not_tried_again():
    calls = []

    class Full(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(x)
            raise torch.OutOfMemoryError("no memory")

    with pytest.raises(torch.OutOfMemoryError):
        select()(Full(4, 3))
    assert len(calls) == 1


NEAREST = {
    "magnitdue": "weight_magnitude",
    "weigth_magnitude": "weight_magnitude",
    "kurtosis": "activation_kurtosis",
    "Rayleigh": "rayleigh_quotient",
    "rayliegh": "rayleigh_quotient",
    "saliencey": "taylor_saliency",
    "alignement": "delta_alignment",
    "redundnacy": "node_redundancy",
}


@pytest.mark.parametrize(("typed", "meant"), NEAREST.items())
def test_a_slip_in_one_part_of_a_name_still_finds_it(typed: str, meant: str):
    assert nearest(typed, Lens.names()) == f" (did you mean {meant!r}?)"


@pytest.mark.parametrize("typed", ["zzzz", "", "_", "qqq_qqq", "é" * 1_000_000])
def test_what_is_like_nothing_gets_no_suggestion(typed: str):
    assert nearest(typed, Lens.names()) == ""
