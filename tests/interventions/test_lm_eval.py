"""The harness gets the model and the tasks by its own API; a stand-in notes the calls."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch

from nodelens.errors import InvalidValueError, MissingPackageError
from nodelens.interventions import evaluate_tasks
from nodelens.interventions.silence import silenced_outputs
from nodelens.model import wrap
from tests.model.families import language_model, text


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the stand-in was called with, and what the model gave out in it."""
    noted: dict[str, Any] = {}

    class HFLM:
        def __init__(self, pretrained: Any, **options: Any) -> None:
            self.model = pretrained.eval()
            noted["options"] = options

    def simple_evaluate(model: HFLM, tasks: list[str], **options: Any) -> dict[str, Any]:
        noted["call"] = (tasks, options)
        noted["model"] = model.model
        noted["logits"] = model.model(text([6])["input_ids"]).logits.detach()
        if "fail" in tasks:
            raise RuntimeError("no such task")
        return {"results": {tasks[0]: {"acc": 0.5}}}

    package, models, huggingface = map(
        ModuleType, ("lm_eval", "lm_eval.models", "lm_eval.models.huggingface")
    )
    package.simple_evaluate = simple_evaluate  # type: ignore[attr-defined]
    package.models, models.huggingface = models, huggingface  # type: ignore[attr-defined]
    huggingface.HFLM = HFLM  # type: ignore[attr-defined]
    for module in (package, models, huggingface):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return noted


def test_the_harness_gets_the_model_and_the_tasks(harness: dict[str, Any]):
    model = language_model("Llama").train()
    found = evaluate_tasks(model, "arc_easy", tokenizer="its own", batch_size=3, limit=10)
    assert found == {"results": {"arc_easy": {"acc": 0.5}}}
    assert harness["options"] == {"tokenizer": "its own", "batch_size": 3}
    assert harness["call"] == (["arc_easy"], {"limit": 10}) and harness["model"] is model
    # It was in evaluation mode, and is as it was.
    assert all(module.training for module in model.modules())
    expected = wrap(model).forward(wrap(model).prepare_batch(text([6])["input_ids"])).logits
    torch.testing.assert_close(harness["logits"], expected)


def test_channels_are_silent_inside_the_harness(harness: dict[str, Any]):
    model = language_model("Llama")
    channels, heads = (
        {"model.layers.0.mlp.up_proj": [3, 4]},
        {"model.layers.1.self_attn.o_proj": [1]},
    )
    for tasks in (["boolq"], ["fail"]):
        if tasks == ["fail"]:
            with pytest.raises(RuntimeError, match="no such task"):
                evaluate_tasks(model, tasks, channels=channels, heads=heads)
        else:
            evaluate_tasks(model, tasks, channels=channels, heads=heads)
        wrapper = wrap(model)
        batch = wrapper.prepare_batch(text([6])["input_ids"])
        expected = silenced_outputs(wrapper, batch, channels, heads=heads).logits
        torch.testing.assert_close(harness["logits"], expected)
        assert not torch.allclose(harness["logits"], wrapper.forward(batch).logits)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_code_that_a_model_wrote_is_never_run(harness: dict[str, Any]):
    with pytest.raises(InvalidValueError, match="code that a model wrote is never run here"):
        evaluate_tasks(language_model("Llama"), "humaneval", confirm_run_unsafe_code=True)
    assert not harness


def test_a_missing_package_is_told_with_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'nodelens\[lm-eval\]'") as missing:
        evaluate_tasks(language_model("Llama"), "arc_easy")
    assert isinstance(missing.value, ImportError)
