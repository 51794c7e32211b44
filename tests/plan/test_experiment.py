"""An experiment keeps to its memory budget, and its scores are the same."""

from __future__ import annotations

import pytest

from nodelens import LensResult
from nodelens.configs.config_loader import load_config
from nodelens.experiments import GeneralAlignmentExperiment
from nodelens.experiments.artifacts import SCORES
from nodelens.experiments.planning import plan_of
from nodelens.plan import passes
from nodelens.testing.trial import assert_equal

CONFIG = """\
experiment: {name: tiny}
model: {name: mlp, options: {hidden: [12, 8]}}
dataset: {name: digits}
training: {epochs: 1}
lenses: [activation_outlier_index, average_redundancy, delta_alignment]
output: {directory: nowhere}
"""


class Short(GeneralAlignmentExperiment):
    """Only what comes up to the scores."""

    def stages(self):
        return list(super().stages())[:3]


def test_scores_measured_in_passes_are_those_of_one(tmp_path, monkeypatch):
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG)
    whole = load_config(path, [("output.directory", str(tmp_path / "whole"))])
    budget = plan_of(whole).peak["cpu"] * 2 // 3
    overrides = [
        ("calibration.memory_budget", budget),
        ("output.directory", str(tmp_path / "part")),
    ]
    split, done = load_config(path, overrides), []
    planned = plan_of(split)
    assert len(planned.passes) > 1 and all(read.block is None for read in planned.reads)
    finish = passes.OnePass.finish
    monkeypatch.setattr(
        passes.OnePass, "finish", lambda self, *given: (done.append(1), finish(self, *given))[1]
    )
    results = [
        LensResult.load(Short(config).run(progress=False).folder.path(SCORES))
        for config in (whole, split)
    ]
    assert len(done) == len(planned.passes)
    assert_equal(results[1], results[0])


@pytest.mark.parametrize("name", ["mlp", "small_cnn"])
def test_the_plan_of_a_configuration_knows_its_classes(tmp_path, name):
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG.replace("mlp, options: {hidden: [12, 8]}", name))
    plan = plan_of(load_config(path, ["lenses=[synergy_gaussian_mmi, activation_mean]"]))
    assert all(not read.unknown for read in plan.reads) and plan.passes[0].batch_flops
