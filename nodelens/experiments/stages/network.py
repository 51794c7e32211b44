"""Training the network, or taking its weights from a checkpoint."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import nn

from nodelens.configs import Config
from nodelens.experiments.artifacts import NETWORK, TRAINING
from nodelens.experiments.language import shown_name
from nodelens.experiments.networks import EPOCH, INITIAL, TRAINED, build_network, read_weights
from nodelens.experiments.provenance import file_digest
from nodelens.experiments.stage import Run, Stage
from nodelens.experiments.training import accuracy, train
from nodelens.model.fingerprint import model_fingerprint

__all__ = ["NetworkStage"]


class NetworkStage(Stage):
    """Writes the weights before and after training, and how accurate the network is.

    Takes up the checkpoint of an earlier run in the same folder when nothing that decides it
    changed. The device is not among those things.
    """

    name = "network"
    needs = ("data",)
    code = ("model/architectures.py", "experiments/training.py", "experiments/networks.py")
    reusable = True

    def check(self, run: Run) -> None:
        network = build_network(run.config, run.splits)
        for key in ("checkpoint", "initial_checkpoint"):
            if getattr(run.config.model, key) is not None:
                read_weights(run.config, key, network)
        if run.config.model.initial_checkpoint and not run.config.model.checkpoint:
            raise run.config.error(
                ("model", "initial_checkpoint"),
                "given without model.checkpoint, but a network trained here has its own",
            )

    def settings(self, run: Run) -> Any:
        config = run.config
        given = {
            key: file_digest(getattr(config.model, key))
            for key in ("checkpoint", "initial_checkpoint")
        }
        training = config.training.model_dump(mode="json") if not given["checkpoint"] else None
        told = {"seed": config.experiment.seed, "training": training, **given}
        told |= {"name": shown_name(config), "options": config.model.options}
        if config.training.epochs == 0 and not given["checkpoint"]:
            told["weights"] = model_fingerprint(build_network(config, run.splits))
        return told

    def protocol(self, config: Config) -> str:
        if config.model.checkpoint is not None:
            return f"{config.model.name} with weights from a checkpoint that was given."
        training = config.training
        if training.epochs == 0:
            return f"{shown_name(config)} with the weights that it came with."
        return (
            f"{config.model.name} trained for {training.epochs} epochs on the training rows alone"
            f" (Adam, learning rate {training.learning_rate:g} falling to 0 along a cosine, batches"
            f" of {training.batch_size}, weight decay {training.weight_decay:g}, seed"
            f" {config.experiment.seed}). The last epoch is kept: no epoch was chosen."
        )

    def run(self, run: Run) -> str:
        network = self._trained(run) if run.config.is_trained_here else self._given(run)
        tested = accuracy(network, run.splits.test)
        validated = accuracy(network, run.splits.validation)
        about = {
            "name": shown_name(run.config),
            "parameters": sum(p.numel() for p in network.parameters()),
            "test_accuracy": tested,
            "validation_accuracy": validated,
        }
        run.folder.write_json(NETWORK, about)
        run.folder.write_tensors(TRAINED, network.state_dict())
        return f"{about['name']}, {_source(run.config)}: {tested:.1%} of the test rows right"

    def _given(self, run: Run) -> nn.Module:
        network = build_network(run.config, run.splits)
        if run.config.model.initial_checkpoint is not None:
            run.folder.write_tensors(
                INITIAL, read_weights(run.config, "initial_checkpoint", network)
            )
        if run.config.model.checkpoint is not None:
            network.load_state_dict(read_weights(run.config, "checkpoint", network))
        return network.to(run.device)

    def _trained(self, run: Run) -> nn.Module:
        import pandas as pd

        network = build_network(run.config, run.splits)
        run.folder.write_tensors(INITIAL, network.state_dict())

        def ended(epoch: int, epochs: int) -> None:
            if epoch in run.config.training.measured_epochs:
                run.folder.write_tensors(EPOCH.format(epoch), network.state_dict())
            run.advance(epoch, epochs)

        history = train(
            network.to(run.device),
            run.splits.train,
            run.splits.validation,
            run.config.training,
            run.config.experiment.seed,
            ended,
        )
        run.folder.write_table(TRAINING, pd.DataFrame([asdict(epoch) for epoch in history]))
        return network


def _source(config: Config) -> str:
    if config.model.checkpoint is not None:
        return "from a checkpoint"
    return f"{config.training.epochs} epochs" if config.training.epochs else "as it came"
