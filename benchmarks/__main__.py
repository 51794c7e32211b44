"""`python -m benchmarks [--only mlp cnn smollm2] [--rounds 5]`: times, ratios, a table."""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import torch

from benchmarks.cases import AGAINST, MARKS, bounds_of, cases_of
from benchmarks.harness import Timing, time_cases
from benchmarks.workloads import WORKLOADS

HERE = Path(__file__).parent


def main() -> None:
    """Measure, print the table, write `results.json` and `results.md` beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    about = {"torch": torch.__version__, "threads": options.threads, "machine": platform.machine()}
    for name in options.only:
        work = WORKLOADS[name]()
        timings = time_cases(cases_of(work), AGAINST, options.rounds, bounds_of(work))
        print(shown := table(name, work.title, timings), flush=True)
        write(name, {**about, "timings": [timing.as_dict() for timing in timings]}, shown)


def write(name: str, found: dict[str, object], shown: str) -> None:
    """Keep what was found of one workload beside what is known of the others."""
    path = HERE / "results.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    known[name] = {**found, "table": shown}
    path.write_text(json.dumps(known, indent=2) + "\n")
    tables = [known[workload]["table"] for workload in WORKLOADS if workload in known]
    (HERE / "results.md").write_text("\n".join(tables))


def table(workload: str, title: str, timings: list[Timing]) -> str:
    """Return a Markdown table of one workload."""
    lines = [
        f"**{title}**",
        "",
        "| case | seconds | ratio | to | over the bound | mark |",
        "|---|--:|--:|---|--:|--:|",
    ]
    for timing in timings:
        mark = MARKS.get((workload, timing.case))
        shown = "" if mark is None else f"{mark:.2f} {'met' if timing.ratio <= mark else 'missed'}"
        bound = "" if timing.bound is None else f"{timing.seconds / timing.bound:.2f}"
        lines.append(
            f"| {timing.case} | {timing.seconds:.3f} | {timing.ratio:.2f} "
            f"| {timing.against} | {bound} | {shown} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
