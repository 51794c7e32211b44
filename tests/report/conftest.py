"""A made-up run whose numbers are known, and the page that reports it."""

from __future__ import annotations

import pandas as pd
import pytest

from nodelens.report import Evidence, Figure, Page, Table, find

HOSTILE = "</script><img src=x onerror=alert(1)>"
AT_HALF = {("mag", "low"): 0.9, ("mag", "high"): 0.2, ("red", "low"): 0.3, ("red", "high"): 0.6}


def sensitivity(changes: dict[tuple[str, str], float] | None = None) -> pd.DataFrame:
    """Accuracy of four orders and three random ones, equal on both parts of the data."""
    orders = {**AT_HALF, **(changes or {})}
    rows = [
        (s, m, None, a, v) for (s, m), half in orders.items() for a, v in [(0, 0.98), (0.5, half)]
    ]
    rows += [
        ("random", "random", seed, amount, value)
        for seed, half in enumerate([0.3, 0.4, 0.5])
        for amount, value in [(0, 0.98), (0.5, half)]
    ]
    table = pd.DataFrame(rows, columns=["score", "mode", "seed", "amount", "accuracy"])
    return pd.concat([table.assign(split=split) for split in ("validation", "test")])


def evidence(**changes: object) -> Evidence:
    channels = pd.DataFrame(
        {
            "layer": ["fc1", "fc1", HOSTILE, HOSTILE],
            "channel": [0, 1, 0, 1],
            "average_redundancy": [0.1, 0.4, 0.2, 0.3],
            "activation_sparsity": [1.0, 0.5, 0.0, 1.0],
            "mag": [1.0, 2.0, 3.0, 4.0],
        }
    )
    names = list(channels.columns[2:])
    correlation = pd.DataFrame(
        [[1, 0.25, -0.5], [0.25, 1, 0.75], [-0.5, 0.75, 1]], index=names, columns=names
    )
    ranks = pd.DataFrame({"fc1": [0.2, 0.5, 0.1], HOSTILE: [0.3, 0.5, 0.9]}, index=names)
    given: dict[str, object] = {
        "channels": channels,
        "correlation": correlation,
        "layer_ranks": ranks,
        "units": {"average_redundancy": "nat"},
        "importance": {"mag": 1, "red": -1},
        "network": "mlp",
        "dataset": "made-up rows",
        "classes": 10,
        "rows": {"train": 100, "validation": 20, "test": 400, "calibration": 100},
        "accuracy": 0.98,
        "sensitivity": sensitivity(),
    }
    return Evidence(**{**given, **changes})  # type: ignore[arg-type]


@pytest.fixture
def page() -> Page:
    """A page about a network with a layer whose name would like to be markup."""
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>'
    found = evidence()
    names = list(found.channels.columns[2:])
    rows = found.channels.itertuples(index=False, name=None)
    layers = ["fc1", HOSTILE]
    return Page(
        title=HOSTILE,
        kind="general alignment",
        findings=find(found),
        curves=[Figure("sensitivity_low", svg, f"curve {HOSTILE}", 300)],
        heatmap=Figure("layer_heatmap", svg, "heatmap", 400),
        correlation=Figure("rank_correlation", svg, "correlation", 600),
        histograms=[Figure("histogram_mag", svg, "histogram", 250)],
        channels={
            "scores": [{"name": name, "unit": "nat", "shown": name == "mag"} for name in names],
            "layers": layers,
            "rows": [[layers.index(row[0]), *row[1:]] for row in rows],
        },
        accuracies=Table(["order", "0%", "50%"], [["mag, lowest first", "98%", "90%"]]),
        layer_means=Table(["score", "unit", *layers], [[name, "", "1", "2"] for name in names]),
        protocol={"data": f"from {HOSTILE}"},
        facts={"seed": "0"},
        stages=Table(["stage", "seconds", "what came out"], [["data", "0.1", HOSTILE]]),
        config="experiment:\n  name: <b>tiny</b>\n",
        files=[("results/", "raw scores")],
    )
