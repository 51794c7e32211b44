"""The first stages of an experiment on a language model: its text, and how well it predicts it."""

from __future__ import annotations

from typing import Any, ClassVar

from nodelens.configs import Config
from nodelens.experiments.artifacts import NETWORK
from nodelens.experiments.language import BLOCK_SIZE, shown_name
from nodelens.experiments.networks import build_network
from nodelens.experiments.stage import Run, Stage
from nodelens.experiments.stages.data import DataStage
from nodelens.interventions import perplexity
from nodelens.model.fingerprint import model_fingerprint

__all__ = ["LanguageModelStage", "TextStage"]


class TextStage(DataStage):
    """Writes how the text was divided and a digest of its tokens."""

    code: ClassVar[tuple[str, ...]] = (
        "data",
        "experiments/splits.py",
        "experiments/language.py",
    )
    rows_are = "blocks"

    def protocol(self, config: Config) -> str:
        dataset = config.dataset
        return (
            f"The text is cut into blocks of {dataset.block_size or BLOCK_SIZE} tokens, in order:"
            f" the last {dataset.test_fraction:.0%} are test, {dataset.validation_fraction:.0%}"
            " before them validation, the rest training. No block is in two parts."
        )


class LanguageModelStage(Stage):
    """Writes how large the model is and its perplexity on the test blocks; its weights stay."""

    name = "network"
    needs = ("data",)
    code = ("data", "model", "interventions", "experiments/stages/language.py")

    def check(self, run: Run) -> None:
        build_network(run.config, run.splits)

    def settings(self, run: Run) -> Any:
        model = run.config.model
        told = {"name": shown_name(run.config), "options": model.options}
        return {**told, "fingerprint": model_fingerprint(run.network)}

    def protocol(self, config: Config) -> str:
        return (
            f"{shown_name(config)} as it was trained elsewhere. Perplexity is exp of the mean loss,"
            " in nats, of every next token within a block of the test part."
        )

    def run(self, run: Run) -> str:
        network = run.network
        (blocks,) = run.splits.test.tensors
        found = perplexity(network, blocks, split="test", batch_size=run.config.dataset.batch_size)
        about = {
            "name": shown_name(run.config),
            "parameters": sum(p.numel() for p in network.parameters()),
            "test_loss": found.loss,
            "test_perplexity": found.value,
            "test_tokens": found.tokens,
            "test_protocol": found.protocol,
            "fingerprint": model_fingerprint(network),
        }
        run.folder.write_json(NETWORK, about)
        return f"{about['name']}: {found}"
