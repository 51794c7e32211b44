"""Models by name: what is not to be had is told at once, with what is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import transformers
from huggingface_hub.errors import HTTPError, RepositoryNotFoundError

from nodelens import load_model
from nodelens.errors import OutputError


@pytest.fixture
def tries(monkeypatch) -> list[str]:
    """The names that transformers is asked for, which gives nothing."""
    asked: list[str] = []

    def refuse(name: str, **_: Any) -> None:
        asked.append(name)
        raise OSError("nothing there")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", refuse)
    return asked


def answering(monkeypatch, answer: Exception | None) -> list[dict[str, Any]]:
    """Let the hub give this answer; returns the options of every call."""
    calls: list[dict[str, Any]] = []

    def model_info(name: str, **options: Any) -> None:
        calls.append(options)
        if answer is not None:
            raise answer

    monkeypatch.setattr(huggingface_hub, "model_info", model_info)
    return calls


def missing() -> RepositoryNotFoundError:
    return RepositoryNotFoundError.__new__(RepositoryNotFoundError, "404 Client Error")


@pytest.mark.parametrize(
    "answer",
    [HTTPError("unreachable"), OSError("no route"), missing()],
    ids=["no network", "no route", "no such model"],
)
def test_a_name_that_is_nowhere_is_told_without_trying_again(answer, tries, monkeypatch):
    calls = answering(monkeypatch, answer)
    with pytest.raises(OutputError, match="there is no model 'typo/name' on this machine, and the"):
        load_model("typo/name")
    assert tries == [] and len(calls) == 1 and calls[0]["timeout"] <= 10


def test_what_the_hub_has_is_loaded_as_before(tries, monkeypatch):
    calls = answering(monkeypatch, None)
    with pytest.raises(OutputError, match="no model could be loaded from 'some/name': nothing"):
        load_model("some/name", revision="v2")
    assert tries == ["some/name"] and calls[0]["revision"] == "v2"


def test_what_is_on_this_machine_asks_nobody(tries, monkeypatch, tmp_path):
    calls = answering(monkeypatch, OSError("no network"))
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: "config.json")
    for name, options in (
        ("in/cache", {}),
        (str(tmp_path), {}),
        ("x/y", {"local_files_only": True}),
    ):
        with pytest.raises(OutputError, match="no model could be loaded from"):
            load_model(name, **options)
    assert calls == [] and len(tries) == 3


def test_the_nearest_packaged_model_or_folder_is_named(monkeypatch, tmp_path: Path):
    answering(monkeypatch, OSError("no network"))
    with pytest.raises(OutputError, match=r"did you mean packaged_model\('smollm2-135m'\)"):
        load_model("smollm2-135")
    (tmp_path / "tiny-bert").mkdir()
    (tmp_path / "tiny-bert" / "config.json").write_text("{}")
    with pytest.raises(OutputError, match=r"did you mean '.*tiny-bert'"):
        load_model(str(tmp_path / "tiny-bret"))


def test_a_folder_still_loads(tmp_path: Path):
    config = transformers.BertConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    transformers.BertModel(config).save_pretrained(tmp_path)
    model = load_model(str(tmp_path))
    assert model.tokenizer is None
    assert torch.is_tensor(model.get_layer_weights()["encoder.layer.0.intermediate.dense"])
