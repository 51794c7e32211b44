"""Training the network, or taking its weights from a checkpoint."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import nn

from nodelens.configs import Config
from nodelens.experiments.artifacts import NETWORK, TRAINING
from nodelens.experiments.networks import INITIAL, TRAINED, build_network, read_weights
from nodelens.experiments.provenance import file_digest
from nodelens.experiments.stage import Run, Stage
from nodelens.experiments.training import accuracy, train

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
        model = {"name": config.model.name, "options": config.model.options}
        return {"seed": config.experiment.seed, "training": training, **model, **given}

    def protocol(self, config: Config) -> str:
        if config.model.checkpoint is not None:
            return f"{config.model.name} with weights from a checkpoint that was given."
        training = config.training
        return (
            f"{config.model.name} trained for {training.epochs} epochs on the training rows alone"
            f" (Adam, learning rate {training.learning_rate:g} falling to 0 along a cosine, batches"
            f" of {training.batch_size}, weight decay {training.weight_decay:g}, seed"
            f" {config.experiment.seed}). The last epoch is kept: no epoch was chosen."
        )

    def run(self, run: Run) -> str:
        given = run.config.model.checkpoint is not None
        network = self._given(run) if given else self._trained(run)
        tested = accuracy(network, run.splits.test)
        validated = accuracy(network, run.splits.validation)
        about = {
            "name": run.config.model.name,
            "parameters": sum(p.numel() for p in network.parameters()),
            "test_accuracy": tested,
            "validation_accuracy": validated,
        }
        run.folder.write_json(NETWORK, about)
        run.folder.write_tensors(TRAINED, network.state_dict())
        source = "from a checkpoint" if given else f"{run.config.training.epochs} epochs"
        return f"{run.config.model.name}, {source}: {tested:.1%} of the test rows right"

    def _given(self, run: Run) -> nn.Module:
        network = build_network(run.config, run.splits)
        if run.config.model.initial_checkpoint is not None:
            run.folder.write_tensors(
                INITIAL, read_weights(run.config, "initial_checkpoint", network)
            )
        network.load_state_dict(read_weights(run.config, "checkpoint", network))
        return network.to(run.device)

    def _trained(self, run: Run) -> nn.Module:
        import pandas as pd

        network = build_network(run.config, run.splits)
        run.folder.write_tensors(INITIAL, network.state_dict())
        history = train(
            network.to(run.device),
            run.splits.train,
            run.splits.validation,
            run.config.training,
            run.config.experiment.seed,
            run.advance,
        )
        run.folder.write_table(TRAINING, pd.DataFrame([asdict(epoch) for epoch in history]))
        return network
