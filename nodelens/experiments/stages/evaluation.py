"""What the whole network is worth on the test part."""

from __future__ import annotations

from typing import Any

from nodelens.configs import Config
from nodelens.experiments.artifacts import EVALUATION
from nodelens.experiments.judging import check_protocol, judge, measured_on, protocol_of
from nodelens.experiments.stage import Run, Stage
from nodelens.model import ModelWrapper

__all__ = ["EvaluationStage"]


class EvaluationStage(Stage):
    """Writes what the network does on the test part, by the protocol of the section."""

    name = "evaluation"
    needs = ("data", "network")
    code = ("data", "model", "interventions", "experiments/judging.py")

    def check(self, run: Run) -> None:
        check_protocol(run)

    def settings(self, run: Run) -> Any:
        evaluation = run.config.evaluation
        return None if evaluation is None else evaluation.model_dump(mode="json")

    def protocol(self, config: Config) -> str:
        return protocol_of(config)

    def run(self, run: Run) -> str:
        found = judge(run, ModelWrapper(run.network))
        run.folder.write_json(EVALUATION, {"protocol": protocol_of(run.config), **found})
        shown = {name: value for name, value in found.items() if value is not None}
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in shown.items())
        return f"{numbers}{measured_on(run.config)}"
