"""Names that nothing has: lenses, scores, options, layers."""

from __future__ import annotations

from nodelens import Lens, ModelWrapper, get_metric
from nodelens.interventions import evaluate
from tests.errors.attempts import Wrong, analyse, make, run, select, x, y

NAMES: Wrong = [
    (make("rayleigh_quotiet"), "unknown lens 'rayleigh_quotiet' .did you mean 'rayleigh_quotient'"),
    (lambda _: Lens.from_name(None), "a lens is asked for by name, a string, not None"),  # type: ignore[arg-type]
    (make("zzzz"), "unknown lens 'zzzz'; `nodelens lenses` lists all "),
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
OPTIONS: Wrong = [
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
LAYERS: Wrong = [
    (select(layers=["fc1"]), "lens 'activation_mean': layer 'fc1' matches nothing.*'0', '2'"),
    (select(layers=["0", "1"]), "layer '1' matches nothing.*the layers are '0', '2'"),
    (select(pattern="conv"), "pattern 'conv' matches nothing.*the layers are '0', '2'"),
    (lambda model: ModelWrapper(model, ["head"]), "no layer 'head'; it has 0, 2"),
    (
        lambda model: evaluate(model, [(x(), y())], {"4": [0]}),
        "batch 0: no layer '4' to silence.*the layers are 0, 2",
    ),
]
