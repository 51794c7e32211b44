"""Values that nothing can be made of: models, options, files, what cannot be merged."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

from nodelens import Aggregator, CompositeLens, Lens, get_metric
from tests.errors.attempts import Wrong, analyse, make, network, run, select, x, y


class WithoutGradients(nn.Sequential):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)  # type: ignore[no-any-return]


class Checkpointed(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(super().forward, x, use_reentrant=False)  # type: ignore[no-any-return]


def in_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return network()


MODELS: Wrong = [
    (lambda _: select()("model.pt"), "a str is not a model; expected a torch.nn.Module"),  # type: ignore[arg-type]
    (
        lambda _: select()(nn.Sequential(nn.ReLU())),
        "lens 'activation_mean' cannot score Sequential: it has no layer this lens can score",
    ),
    (
        lambda _: select()(torch.jit.ScriptModule()),
        "a TorchScript model has no layers that can be read",
    ),
    (
        lambda _: select()(nn.Sequential(OrderedDict(path=nn.Linear(4, 3)))),
        "nnsight has a use of its own for the name of the child 'path': rename it",
    ),
    (
        lambda _: analyse("taylor_saliency", (x(), y()))(in_inference_mode()),
        "batch 0: the weights were made in inference mode, so no gradient can be taken",
    ),
    (
        lambda _: analyse("taylor_saliency", (x(), y()))(WithoutGradients(network())),
        "batch 0: the model runs layer '0.0' without gradients, in no_grad or a re-entrant",
    ),
    (
        lambda _: analyse("taylor_saliency", (x(), y()))(Checkpointed(network())),
        "batch 0: the model computes activations again on the way back",
    ),
    (run("scar_taylor", (x(), y())), "cannot score Sequential: it has no feed-forward block"),
    (lambda _: CompositeLens(["rq"]), "a composite is made of lenses, got str"),  # type: ignore[list-item]
]


VALUES: Wrong = [
    (select(pattern=3), "pattern 3 is not a regular expression"),
    (select(layers=3), "layers is 3, expected names or globs"),
    (select(layers=[3]), "layers holds 3, expected names or globs"),
    (make("rq", regularization=float("nan")), "regularization is nan, expected 0 or more"),
    (analyse("rq", None), "batch 0: no batch was given"),
    (analyse("rq", DataLoader([x()])), "a stream of batches .a DataLoader. was given.*run"),  # type: ignore[arg-type]
    (analyse("rq", iter([x()])), "a stream of batches .a list_iterator. was given.*run"),
    (analyse("mi_gaussian", (x(), ["a"] * 20)), "no tensor can be made of the targets, a list: "),
    (lambda model: Lens.from_name("rq").run(model, None), "batches is None, expected something"),  # type: ignore[arg-type]
    (lambda _: Lens.register(""), "a lens is registered as '', expected a name"),
    (lambda _: Lens.register(Lens), "a lens is registered as <class.*expected a name"),  # type: ignore[arg-type]
    (lambda _: Lens.register("a", aliases="bc"), "aliases is 'bc', expected several: .'bc',."),
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
FILES: Wrong = [
    (lambda _: Aggregator.load("no/such/file"), "cannot read 'no/such/file'"),
]
MERGES: Wrong = [
    (
        lambda _: Lens.from_name("rq").aggregator().update(None),  # type: ignore[arg-type]
        "batch 0: NoneType is given, expected statistics",
    ),
    (
        lambda _: Lens.from_name("rq").aggregator().update({"0": None}),  # type: ignore[dict-item]
        "batch 0: NoneType is given, expected statistics",
    ),
    (
        lambda _: Lens.from_name("rq").aggregator().merge(None),  # type: ignore[arg-type]
        "cannot merge None into RayleighQuotient.*expected an Aggregator",
    ),
    (
        lambda model: Lens.from_name("rq").aggregator().update(select()(model)),  # type: ignore[arg-type]
        "batch 0, layer '0': 'activation_mean' is a Tensor, expected statistics",
    ),
    (
        lambda _: (
            Lens.from_name("rq")
            .aggregator()
            .merge(Lens.from_name("rq", spatial="gap").aggregator())
        ),
        "cannot merge RayleighQuotient.* into RayleighQuotient.*different things",
    ),
]
