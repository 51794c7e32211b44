"""A made-up run whose numbers are known, and the page that reports it."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pandas as pd
import pytest

from nodelens.report import Evidence, Figure, Page, Part, Table, channel_data, find

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")

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


def part() -> Part:
    """What a stranger's stage found."""
    rows = [[f"g{n}", str(n * 7 % 20), HOSTILE] for n in range(20)] + [["none", "", "x"]]
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>'
    return Part(
        anchor="part-groups",
        title=f"Groups {HOSTILE}",
        sentence="`fc1[1]` has no double.",
        answers="matter",
        findings=["There are 20 groups."],
        numbers=[("20", "groups", "")],
        tables=[Table(["group", "members", "made of"], rows, title="Groups")],
        figures=[Figure("groups", svg, "groups drawn", 300, caption="What they tell.")],
        how="Counted.",
    )


Browse = Callable[..., tuple[str, list[str]]]


@pytest.fixture
def browse(tmp_path: Path) -> Browse:
    """Open a page in Chromium: the text of `#seen` after `steps`, and what went to the console."""
    if BROWSER is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")

    def opened(
        html: str, steps: str = "", *, address: str = "", picture: str = "", size: str = "1280,900"
    ) -> tuple[str, list[str]]:
        # Under the page's own policy: nothing but this one script more.
        digest = base64.b64encode(hashlib.sha256(steps.encode()).digest()).decode()
        html = html.replace("script-src ", f"script-src &#39;sha256-{digest}&#39; ", 1)
        (tmp_path / "page.html").write_text(
            html.replace("</body>", f"<script>{steps}</script></body>"), encoding="utf-8"
        )
        command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]
        command += ["--no-first-run", "--disable-background-networking", "--disable-sync"]
        command += ["--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}"]
        command += ["--enable-logging=stderr", "--v=0", f"--window-size={size}"]
        command += [f"--screenshot={tmp_path / picture}" if picture else "--dump-dom"]
        command += [f"file://{tmp_path / 'page.html'}{address}"]
        done = subprocess.run(
            command, capture_output=True, timeout=60, check=True, stdin=subprocess.DEVNULL
        )
        found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout.decode(), re.DOTALL)
        told = [line for line in done.stderr.decode().splitlines() if "CONSOLE" in line]
        return (unescape(found[1]) if found else ""), told

    return opened


@pytest.fixture
def page() -> Page:
    """A page about a network with a layer whose name would like to be markup."""
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>'
    found = evidence()
    names = list(found.channels.columns[2:])
    channels = found.channels.assign(kind=["core", None, HOSTILE, "core"])
    return Page(
        title=HOSTILE,
        kind="general alignment",
        findings=find(found),
        curves=[Figure("sensitivity_low", svg, f"curve {HOSTILE}", 300)],
        heatmap=Figure("layer_heatmap", svg, "heatmap", 400),
        correlation=Figure("rank_correlation", svg, "correlation", 600),
        channels=channel_data(channels, dict.fromkeys(names, "nat"), ["mag"]),
        parts=[part()],
        accuracies=Table(["order", "0%", "50%"], [["mag, lowest first", "98%", "90%"]]),
        layer_means=Table(
            ["score", "unit", "fc1", HOSTILE], [[name, "", "1", "2"] for name in names]
        ),
        protocol={"data": f"from {HOSTILE}"},
        facts={"seed": "0"},
        stages=Table(["stage", "seconds", "what came out"], [["data", "0.1", HOSTILE]]),
        config="experiment:\n  name: <b>tiny</b>\n",
        files=[("results/", "raw scores")],
    )
