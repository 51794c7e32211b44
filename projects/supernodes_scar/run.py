"""A run from model and text to tables, in a folder that a later call goes on from."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch

from nodelens.errors import InvalidValueError
from nodelens.files import write_text
from nodelens.model.fingerprint import model_fingerprint
from projects.supernodes_scar.claims import claims
from projects.supernodes_scar.conditions import conditions
from projects.supernodes_scar.kinds import kinds_table
from projects.supernodes_scar.losses import known_losses, measure_losses
from projects.supernodes_scar.scores import Scores, measure_scores
from projects.supernodes_scar.study import Settings, Study
from projects.supernodes_scar.tables import (
    Losses,
    channel_table,
    concentration_table,
    overlap_table,
    perplexity_table,
)

__all__ = ["run_study"]

SETTINGS = "settings.json"
LOSSES = "losses.jsonl"


def run_study(
    settings: Settings,
    folder: Path,
    say: Callable[[str], None] = print,
    make: Callable[[Settings], Study] = Study.of,
) -> None:
    """Measure what is not in `folder` yet, and write its tables.

    Raises InvalidValueError when the folder holds a run with other settings.
    """
    began = time.perf_counter()
    _claim(folder, settings)
    study = make(settings)
    scores = measure_scores(study, folder / "scores", say)
    measure_losses(study, conditions(study, scores), folder / LOSSES, say)
    kinds = kinds_table(study, scores, folder / "scores" / "attention.safetensors", say)
    _write_tables(study, scores, kinds, folder)
    _write_about(study, folder, time.perf_counter() - began)


def _claim(folder: Path, settings: Settings) -> None:
    path = folder / SETTINGS
    if path.exists() and (found := json.loads(path.read_text())) != settings.plain():
        raise InvalidValueError(
            f"{str(folder)!r} holds a run with the settings {found}, expected "
            f"{settings.plain()}, or another --output-dir"
        )
    write_text(path, json.dumps(settings.plain(), indent=1) + "\n")


def _write_tables(study: Study, scores: Scores, kinds: pd.DataFrame, folder: Path) -> None:
    losses = Losses(known_losses(folder / LOSSES))
    concentration, overlap = concentration_table(study, scores), overlap_table(study, scores)
    tables = {
        "concentration": concentration,
        "overlap": overlap,
        "channels": channel_table(study, scores),
        "kinds": kinds,
        "perplexity": perplexity_table(losses),
        "claims": claims(concentration, overlap, losses),
    }
    for name, table in tables.items():
        write_text(folder / f"{name}.csv", table.to_csv(index=False, float_format="%.8g"))


def _write_about(study: Study, folder: Path, seconds: float) -> None:
    path = folder / "about.json"
    before = json.loads(path.read_text())["seconds"] if path.exists() else 0
    about = {
        "model": Path(study.settings.model).name,
        "fingerprint": model_fingerprint(study.model.module),
        "blocks": len(study.layers),
        "calibration articles": study.articles[0],
        "evaluation articles": study.articles[1],
        "seconds": before + seconds,
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("nodelens", "torch", "transformers")},
        },
    }
    write_text(path, json.dumps(about, indent=1) + "\n")
