"""The harness gets the model and the tasks by its own API; a stand-in notes the calls.

The harness itself is run where it is installed, on a task in a file: nothing is downloaded.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
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


WORDS = ["<pad>", "<eos>", *"abcdefghijklmnopqrstuvwxyz0123"]
QUESTIONS = [("h e a", "bcd", 0), ("q u i z", "xyz", 2), ("m", "aeo", 1), ("s t u v w", "kpr", 0)]


def words() -> Any:
    """A tokenizer of a token a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    numbers = {word: number for number, word in enumerate(WORDS)}
    plain = Tokenizer(models.WordLevel(numbers, unk_token="<pad>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, eos_token="<eos>", pad_token="<pad>", unk_token="<pad>"
    )


def task_in(folder: Path) -> dict[str, Any]:
    """A task of the harness's own kind, whose questions are in a file."""
    rows = [{"question": q, "choices": list(c), "answer": a} for q, c, a in QUESTIONS]
    path = folder / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return {
        "task": "letters",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}, "cache_dir": str(folder)},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_harness_itself_sees_the_silenced_model(tmp_path: Path):
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: it is in nodelens[lm-eval]")
    model, silent = language_model("Llama"), list(range(30))
    name = "model.layers.0.mlp.up_proj"
    found = evaluate_tasks(
        model, [task_in(tmp_path)], tokenizer=words(), channels={name: silent}, bootstrap_iters=0
    )
    without = copy.deepcopy(model)
    without.get_submodule(name).weight.data[silent] = 0
    right = []
    for sample, (question, choices, answer) in zip(
        found["samples"]["letters"], QUESTIONS, strict=True
    ):
        ids = torch.tensor([[WORDS.index(word) for word in question.split()]])
        with torch.no_grad():
            chances, dense = (m(ids).logits[0, -1].log_softmax(-1) for m in (without, model))
        numbers = [WORDS.index(choice) for choice in choices]
        told = torch.tensor([float(likelihood) for likelihood, _ in sample["filtered_resps"]])
        torch.testing.assert_close(told, chances[numbers], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(told, dense[numbers], atol=1e-3), "nothing was at stake"
        right.append(int(chances[numbers].argmax()) == answer)
    assert found["results"]["letters"]["acc,none"] == pytest.approx(sum(right) / len(right))
