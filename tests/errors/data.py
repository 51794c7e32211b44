"""Data that cannot be scored: shapes, too few rows, no numbers, no targets, no loss."""

from __future__ import annotations

import torch
from torch import nn

from nodelens import Lens, get_metric
from nodelens.interventions import evaluate
from tests.errors.attempts import Wrong, analyse, broken, run, select, x, y

SHAPES: Wrong = [
    (
        analyse("activation_mean", torch.randn(20, 5)),
        r"lens 'activation_mean', batch 0: .*layer '0' has shape \(20, 5\), expected 4 channels",
    ),
    (
        run("activation_mean", x(), torch.randn(20, 5)),
        r"lens 'activation_mean', batch 1: .*layer '0' has shape \(20, 5\), expected 4 channels",
    ),
    (
        lambda _: select()(nn.Sequential(nn.Linear(4, 6), nn.Linear(5, 3))),
        r"batch 0: the input of layer '1' has shape \(20, 6\), expected 5 channels",
    ),
    (
        lambda _: Lens.from_name("rq").analyse(nn.Conv2d(3, 4, 3), torch.randn(2, 2, 8, 8)),
        r"layer 'model' has shape \(2, 2, 8, 8\), expected 3 channels",
    ),
    (
        lambda model: evaluate(model, [(x(), y()), (torch.randn(20, 5), y())]),
        r"batch 1: the input of layer '0' has shape \(20, 5\), expected 4 channels",
    ),
    (
        analyse("taylor_saliency", (x(), y(7))),
        r"lens 'taylor_saliency', batch 0: targets of shape \(7,\) for a batch of 20",
    ),
    (
        run("mi_gaussian", (x(), y()), (x(), y(7))),
        r"lens 'mutual_information_gaussian', batch 1: targets of shape \(7,\) for a batch of 20",
    ),
    (
        lambda _: Lens.from_name("mi_gaussian").analyse(
            nn.Conv2d(3, 4, 1), (torch.randn(9, 3, 5, 5), torch.zeros(9, 5, 5).long())
        ),
        r"layer 'model' has 9 rows for targets of shape \(9, 5, 5\), expected one target",
    ),
    (
        analyse("delta_alignment", x(), initial_weights={"0.weight": torch.zeros(3, 3)}),
        r"initial weight of layer '0' has rows \(3, 3\), expected \(6, 4\)",
    ),
    (
        lambda _: get_metric("mi_gaussian").compute(outputs=x(), targets=y(7)),
        "7 targets for 20 rows",
    ),
]
ROWS: Wrong = [
    (
        analyse("activation_mean", x(0)),
        "lens 'activation_mean': layer '0': no row seen, expected at least 1",
    ),
    (
        analyse("taylor_saliency", (x(0), y(0))),
        "lens 'taylor_saliency': layer '0': no row seen",
    ),
    (
        analyse("rayleigh_quotient", x(1)),
        "lens 'rayleigh_quotient': layer '0': one row seen, expected at least 2",
    ),
    (analyse("activation_kurtosis", x(1)), "one row seen, expected at least 2"),
    (analyse("average_redundancy", x(1)), "one row seen, expected at least 2"),
    (analyse("synergy_gaussian_mmi", (x(2), y(2))), "2 rows seen, expected at least 3"),
]
NUMBERS: Wrong = [
    (
        run("rayleigh_quotient", x(), broken()),
        "lens 'rayleigh_quotient', batch 1: layer '0': 1 NaN and 1 infinite values among 80 in its"
        " input",
    ),
    (
        run("activation_mean", x(), x(), broken()),
        "lens 'activation_mean', batch 2: layer '0': .* NaN .* values among 120 in its output",
    ),
    (run("taylor_saliency", (x(), y()), (broken(), y())), "lens 'taylor_saliency', batch 1: "),
    (
        lambda model: evaluate(model, [(x(), y()), (broken(), y())]),
        "batch 1: the loss of 20 predictions is nan",
    ),
    (
        lambda _: get_metric("activation_mean").compute(outputs=broken()),
        "1 NaN and 1 infinite values among 80",
    ),
]
TARGETS: Wrong = [
    (
        analyse("mi_gaussian", x()),
        "lens 'mutual_information_gaussian', batch 0: layer '0': targets are needed",
    ),
    (analyse("taylor_saliency", x()), "lens 'taylor_saliency', batch 0: a loss needs targets"),
    (analyse("taylor_saliency", (x(), y() + 2)), "class number 4 for 3 outputs, expected 0 to 2"),
    (analyse("taylor_saliency", (x(), y() - 1)), "class number -1 for 3 outputs, expected 0 to 2"),
    (analyse("mi_gaussian", (x(), y() - 1)), "class numbers start at 0, got -1"),
    (
        analyse("synergy_gaussian_mmi", (x(), torch.randn(20))),
        "batch 0: .*class numbers are needed .*got torch.float32 of shape",
    ),
    (analyse("delta_alignment", x()), "lens 'delta_alignment' needs initial_weights="),
    (
        analyse("delta_alignment", x(), initial_weights={"0.weight": torch.zeros(6, 4)}),
        "batch 0: layer '2' has no initial weights",
    ),
    (analyse("delta_alignment", x(), initial_weights=3), "initial_weights is a int, expected"),
]
LOSSES: Wrong = [
    (
        analyse("taylor_saliency", (x(), y()), loss="crossentropy"),
        "batch 0: unknown loss 'crossentropy' .did you mean 'cross_entropy'",
    ),
    (
        analyse("taylor_saliency", (x(), y()), loss=lambda output, targets: 3),
        "the loss returned int, expected a float tensor",
    ),
    (
        analyse("taylor_saliency", (x(), torch.randn(20, 2))),
        r"no loss for outputs of shape \(20, 3\) and numeric targets of shape \(20, 2\)",
    ),
    (
        analyse("taylor_saliency", (x(), y().float())),
        r"targets of shape \(20,\): integers are class numbers \(targets.long\(\)\), floats are",
    ),
]
