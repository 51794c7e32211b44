"""Models that run elsewhere: in nnsight's simulation, and in a process that lacks nodelens."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nnsight
import pytest
import torch
from nnsight.modeling.mixins.remotable import Remotable
from torch import nn

from nodelens import CompositeLens, Lens, NodeLensError
from nodelens.errors import (
    IncompatibleModelError,
    InvalidValueError,
    NonFiniteError,
    UnknownOptionError,
)
from nodelens.model.shipping import packages_of, sources
from nodelens.registry import LENSES
from nodelens.statistics import Mean, Moments, Sample, Statistic, kernels
from nodelens.testing.trial import assert_equal
from tests.model.families import language_model
from tests.model.test_wrapper import tokenizer

ROOT = Path(__file__).resolve().parent.parent
LOCAL: Any = {"remote": "local"}
LATER = ["cross_layer_redundancy", "synergy_continuous_target"]
FORWARD = ["rayleigh_quotient", "average_redundancy", "activation_mean", "weight_magnitude"]

SERVER = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("nodelens", "nodelens_lenses", "acme_lens"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NotInstalled())
import torch
from nnsight import TransformersModel
from nnsight.schema.request import RequestModel
from nnsight.tracing.tracer import _saves, dec, inc
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = sys.argv[1]
module = AutoModelForCausalLM.from_pretrained(folder)
model = TransformersModel(
    module, tokenizer=AutoTokenizer.from_pretrained(folder), task="text-generation"
)
blob = open(f"{folder}/request", "rb").read()
tracer = RequestModel.deserialize(blob, model._remoteable_persistent_objects())
inc()
tracer.execute(tracer.info.code)
saved = {k: v for k, v in tracer.info.frame.f_locals.items() if id(v) in _saves()}
dec()
torch.save(saved, f"{folder}/response")
"""


class OtherProcess:
    """What nnsight sends to a host goes to a process of its own, and comes back as it would."""

    def __init__(self, folder: Path, module: nn.Module) -> None:
        self.folder = folder
        module.save_pretrained(folder)  # type: ignore[operator]
        tokenizer().save_pretrained(folder)

    def __call__(self, tracer: Any) -> None:
        from nnsight.intervention.backends.remote import RemoteBackend
        from nnsight.ndif import pull_env
        from nnsight.schema.request import RequestModel

        pull_env()
        (self.folder / "request").write_bytes(RequestModel.serialize(tracer))
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        subprocess.run(
            [sys.executable, "-c", SERVER, str(self.folder)],
            cwd=self.folder,
            env=environment,
            check=True,
            capture_output=True,
        )
        found = torch.load(self.folder / "response", weights_only=True)
        RemoteBackend._push(self, found, tracer)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _by_torch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled does not travel, so it is left out here: sums are then equal bit for bit."""
    monkeypatch.setattr(kernels, "_library", lambda: None)


@pytest.fixture(scope="module")
def model() -> Any:
    return hosted(language_model("Llama"))


def hosted(module: nn.Module) -> Any:
    return nnsight.TransformersModel(module, tokenizer=tokenizer(), task="text-generation")


@pytest.fixture
def silence(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lens]:
    """The lens of a stranger's package, imported and gone again."""
    LENSES.names()
    for store in ("_classes", "_aliases"):
        monkeypatch.setattr(LENSES, store, dict(getattr(LENSES, store)))
    monkeypatch.setattr(Statistic, "_classes", dict(Statistic._classes))
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "acme_lens"))
    importlib.import_module("acme_lens")
    yield Lens.from_name("acme.silence")
    sys.modules.pop("acme_lens")


def batch(rows: int = 4, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, 28, (rows, 7), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def forward() -> Lens:
    return CompositeLens([Lens.from_name(name) for name in FORWARD])


def test_scores_of_a_hosted_model_are_those_of_the_model(model: Any):
    here, there = forward().analyse(model, batch()), forward().analyse(model, batch(), **LOCAL)
    assert_equal(there, here)
    assert there.rows == here.rows and there.notes == here.notes


@pytest.mark.slow
def test_a_stream_and_one_dict_a_batch_are_measured_elsewhere_too(model: Any):
    batches = [batch(seed=seed) for seed in range(3)]
    here = forward().run(model, batches, progress=False)
    assert_equal(forward().run(model, batches, progress=False, **LOCAL), here)
    aggregator = forward().aggregator()
    for statistics in forward().analyse_batched(model, batches, **LOCAL):
        aggregator.update(statistics)
    assert_equal(aggregator.result(), here)


@pytest.mark.slow
def test_what_waits_for_another_layer_or_the_outputs_is_measured_elsewhere_too(model: Any):
    lens = CompositeLens([Lens.from_name(name) for name in LATER])
    assert_equal(lens.analyse(model, batch(), **LOCAL), lens.analyse(model, batch()))


def test_a_strangers_lens_travels_with_its_statistic(model: Any, silence: Lens):
    assert_equal(silence.analyse(model, batch(), **LOCAL), silence.analyse(model, batch()))


@pytest.mark.slow
def test_a_server_that_lacks_our_packages_gives_the_same_scores(
    model: Any, silence: Lens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    many = CompositeLens([*forward().lenses, silence])  # type: ignore[attr-defined]
    here = many.analyse(model, batch())
    server = OtherProcess(tmp_path, model._module)
    monkeypatch.setattr(Remotable, "_remote_backend", lambda *_: server)
    assert_equal(many.analyse(model, batch(), remote=True), here)
    # What came back holds plain data and tensors no larger than the statistics are.
    found = torch.load(tmp_path / "response", weights_only=True)["found"]
    index, tensors = found["packed"]
    rows = batch()["input_ids"].numel()
    assert index["entries"] and all(rows not in t.shape for t in tensors.values())


@pytest.mark.slow
def test_only_the_statistics_cross_over(model: Any, monkeypatch: pytest.MonkeyPatch):
    from nodelens import hosted as module

    brought: list[Any] = []
    whole = module.Aggregator.unpacked
    monkeypatch.setattr(
        module.Aggregator,
        "unpacked",
        lambda lens, index, tensors: brought.append(tensors) or whole(lens, index, tensors),
    )
    Lens.from_name("activation_mean", layers="*up_proj").analyse(model, batch(), **LOCAL)
    ((total,),) = [{t.shape for t in tensors.values()} for tensors in brought]
    assert len(total) == 1


@pytest.mark.slow
def test_weights_that_are_not_here_are_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = language_model("Llama")
    server = OtherProcess(tmp_path, module)
    monkeypatch.setattr(Remotable, "_remote_backend", lambda *_: server)
    far = nnsight.TransformersModel(str(tmp_path), tokenizer=tokenizer(), task="text-generation")
    assert all(p.is_meta for p in far._module.parameters())
    here = forward().analyse(module, batch())
    assert_equal(forward().analyse(far, batch(), remote=True), here)
    assert all(p.is_meta for p in far._module.parameters())


@pytest.mark.slow
def test_the_model_and_the_modules_are_as_they_were(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(str(tmp_path))
    module, path = model._module, list(sys.path)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    loaded, measure = dict(sys.modules), Moments.measure.__func__
    module.train()
    try:
        forward().analyse(model, batch(), **LOCAL)
        assert all(m.training for m in module.modules())
    finally:
        module.eval()
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert sys.path == path and Moments.measure.__func__ is measure
    mine = {n: m for n, m in sys.modules.items() if n.startswith("nodelens")}
    assert mine == {n: m for n, m in loaded.items() if n.startswith("nodelens")}


@pytest.mark.slow
def test_an_error_over_there_is_ours_and_names_the_layer(model: Any):
    weight = model._module.model.layers[0].mlp.up_proj.weight
    value = weight[0, 0].item()
    with torch.no_grad():
        weight[0, 0] = torch.nan
    try:
        with pytest.raises(NonFiniteError, match=r"lens 'activation_mean', batch 0.*up_proj"):
            Lens.from_name("activation_mean").analyse(model, batch(), **LOCAL)
    finally:
        with torch.no_grad():
            weight[0, 0] = value
    assert Lens.from_name("activation_mean").analyse(model, batch(), **LOCAL)


@pytest.mark.parametrize(
    ("lens", "reason"),
    [
        (lambda: Lens.from_name("taylor_saliency"), "takes the gradient of the loss"),
        (lambda: Lens.from_name("scar_taylor"), "takes the gradient of the loss"),
        (
            lambda: Lens.from_name("ablation", channels={"model.layers.0.mlp.up_proj": [0]}),
            "compares outputs of the edited model here",
        ),
    ],
)
def test_a_lens_that_needs_the_model_here_says_so(model: Any, lens: Any, reason: str):
    with pytest.raises(IncompatibleModelError, match=f"remote='local'.*{reason}") as caught:
        lens().analyse(model, batch(), **LOCAL)
    assert "run it without remote=" in str(caught.value)


def test_the_parts_that_need_a_gradient_are_named_in_a_composite(model: Any):
    names = ["activation_mean", "taylor_saliency", "fisher"]
    many = CompositeLens([Lens.from_name(name) for name in names])
    with pytest.raises(IncompatibleModelError, match=r"after the pass \(taylor_saliency, fisher\)"):
        many.analyse(model, batch(), **LOCAL)


@pytest.mark.slow
def test_a_hosted_run_keeps_to_a_budget(model: Any):
    lens, batches = forward(), [batch(seed=seed) for seed in range(2)]
    budget = lens.plan(model, batches[0]).peak["cpu"] * 3 // 4
    assert len(lens.plan(model, batches[0], memory_budget=budget).passes) > 1
    there = lens.run(model, batches, progress=False, memory_budget=budget, **LOCAL)
    assert_equal(there, lens.run(model, batches, progress=False))


def test_a_model_that_nnsight_does_not_host_is_refused():
    with pytest.raises(IncompatibleModelError, match="needs a model that nnsight hosts"):
        forward().analyse(nn.Linear(3, 2), torch.randn(4, 3), **LOCAL)


def test_a_lens_of_a_notebook_is_refused(model: Any, monkeypatch: pytest.MonkeyPatch):
    made = Lens.from_name("activation_mean")
    monkeypatch.setattr(type(made), "__module__", "__main__")
    with pytest.raises(NodeLensError, match=r"cannot be sent to a hosted model"):
        made.analyse(model, batch(), **LOCAL)


def test_options_that_cannot_be_sent_are_refused(model: Any):
    made = Lens.from_name("activation_mean")
    made.unit = lambda: 0  # type: ignore[attr-defined]
    with pytest.raises(InvalidValueError, match="cannot be sent to a hosted model"):
        made.analyse(model, batch(), **LOCAL)


def test_a_wrong_name_for_the_option_is_an_error(model: Any):
    with pytest.raises(UnknownOptionError, match="remote"):
        forward().analyse(model, batch(), remot="local")


class Own(Lens):
    """A lens that reads on its own, as a stranger's may."""

    name = "own"

    def _intervene(self, model: Any, **kwargs: Any) -> Any:
        return {
            layer: {"value": Mean.measure(Sample(envoy.output.detach().flatten(0, -2)))}
            for layer, envoy in self._get_modules(model)
        }


class Leaky(Own):
    name = "leaky"

    def _intervene(self, model: Any, **kwargs: Any) -> Any:
        return {layer: {"raw": envoy.output} for layer, envoy in self._get_modules(model)}


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The two lenses in a module of their own, as a plugin has them."""
    text = Path(__file__).read_text("utf-8")
    start, end = text.index("class Own("), text.index("@pytest.fixture\ndef plugin")
    head = (
        "from typing import Any\n\n"
        "from nodelens import Lens\nfrom nodelens.statistics import Mean, Sample\n\n\n"
    )
    (tmp_path / "plugin_for_remote.py").write_text(head + text[start:end])
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("plugin_for_remote")
    sys.modules.pop("plugin_for_remote")


def test_a_lens_that_reads_on_its_own_travels_too(model: Any, plugin: Any):
    lens = plugin.Own(layers="*up_proj")
    assert_equal(lens.analyse(model, batch(), **LOCAL), lens.analyse(model, batch()))


def test_a_composite_of_several_readers_is_refused(model: Any, plugin: Any):
    many = CompositeLens([plugin.Own(layers="*up_proj"), Lens.from_name("activation_mean")])
    with pytest.raises(IncompatibleModelError, match="a hosted pass has one reader"):
        many.analyse(model, batch(), **LOCAL)


@pytest.mark.slow
def test_weights_given_for_comparison_travel(model: Any):
    lens = Lens.from_name("delta_alignment", layers="*up_proj")
    initial = {k: v * 0.9 + 0.01 for k, v in model._module.state_dict().items()}
    here = lens.analyse(model, batch(), initial_weights=initial)
    assert_equal(lens.analyse(model, batch(), initial_weights=initial, **LOCAL), here)


def test_what_is_no_statistic_does_not_come_back(model: Any, plugin: Any):
    with pytest.raises(IncompatibleModelError, match="'raw' is a Tensor, and only statistics"):
        plugin.Leaky(layers="*up_proj").analyse(model, batch(), **LOCAL)


def test_the_packages_sent_are_those_of_the_classes(silence: Lens):
    from nodelens.hosted import _classes

    (read,) = silence.reads(None).values()
    sent = packages_of(_classes(Lens.from_name("activation_mean"), [read]))
    assert sent == {"nodelens", "nodelens_lenses", "acme_lens"}
    assert packages_of([Moments]) == {"nodelens"}
    assert packages_of([type(Lens.from_name("activation_mean"))]) == {"nodelens", "nodelens_lenses"}
    assert len(sources(frozenset({"nodelens"}))) < 400_000
