"""Values that nothing can be made of: models, options, files, what cannot be merged."""

from __future__ import annotations

from torch import nn

from nodelens import Aggregator, CompositeLens, Lens, get_metric
from tests.errors.attempts import Wrong, analyse, make, run, select, x, y

MODELS: Wrong = [
    (lambda _: select()("model.pt"), "a str is not a model; expected a torch.nn.Module"),  # type: ignore[arg-type]
    (
        lambda _: select()(nn.Sequential(nn.ReLU())),
        "lens 'activation_mean' cannot score Sequential: it has no layer this lens can score",
    ),
    (run("scar_taylor", (x(), y())), "cannot score Sequential: it has no feed-forward block"),
    (lambda _: CompositeLens(["rq"]), "a composite is made of lenses, got str"),  # type: ignore[list-item]
]


VALUES: Wrong = [
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
        lambda _: (
            Lens.from_name("rq")
            .aggregator()
            .merge(Lens.from_name("rq", spatial="gap").aggregator())
        ),
        "cannot merge RayleighQuotient.* into RayleighQuotient.*different things",
    ),
]
