"""The loss of every evaluation block under every condition, written as it comes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from nodelens.interventions import perplexity
from projects.supernodes_scar.conditions import Condition
from projects.supernodes_scar.study import Study

__all__ = ["known_losses", "measure_losses"]


def measure_losses(
    study: Study, wanted: Iterable[Condition], path: Path, say: Callable[[str], None] = print
) -> None:
    """Write one line a condition; those that are in the file are not measured again."""
    done = {(line["name"], line["seed"]) for line in _lines(path)}
    for condition in wanted:
        if (condition.name, condition.seed) in done:
            continue
        line = _measured(study, condition)
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        say(f"{condition.name}: loss {sum(line['losses']) / len(line['losses']):.4f}")


def known_losses(path: Path) -> pd.DataFrame:
    """Return a row a condition: `name`, `group`, `seed`, `silenced` and `losses`, a list."""
    return pd.DataFrame(_lines(path))


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    text = path.read_text()
    # A line without its end was cut off; its condition is measured again.
    whole, cut = text[: text.rfind("\n") + 1], text[text.rfind("\n") + 1 :]
    if cut:
        path.write_text(whole)
    return [json.loads(line) for line in whole.splitlines()]


def _measured(study: Study, condition: Condition) -> dict[str, Any]:
    silent = {name: mask for name, mask in condition.silent.items() if bool(mask.any())}
    found = perplexity(
        study.model,
        study.evaluation,
        split="other articles",
        channels=silent or None,
        site="input",
        value="zero" if condition.stand_in is None else condition.stand_in,
        calibration=study.fingerprint,
    )
    return {
        "name": condition.name,
        "group": condition.group,
        "seed": condition.seed,
        "silenced": found.silenced,
        "losses": found.block_losses,
    }
