"""Attention heads against feed-forward units: whose is the loss proxy, block by block?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from nodelens import Lens
from nodelens.analysis.depth import compared_kinds
from nodelens.files import load_tensors, save_tensors
from projects.supernodes_scar.scores import Scores, divided
from projects.supernodes_scar.study import Study

__all__ = ["kinds_table"]


def kinds_table(
    study: Study, scores: Scores, path: Path, say: Callable[[str], None] = print
) -> pd.DataFrame:
    """Return `compared_kinds` of heads and units on the first part of the calibration text.

    Heads are measured where the file `path` is not there yet.
    """
    if not path.exists():
        say("measuring attention heads")
        lens = Lens.from_name("attn_loss_proxy")
        found = lens.run(study.model, divided(study.calibration)[0], progress=False)
        save_tensors(path, dict(found.scores("attn_loss_proxy")))
    tensors = load_tensors(path)[0]
    heads = {name: tensors[name] for name in study.model.layers if name in tensors}
    kinds = {"head": heads, "unit": scores.parts[0]["loss proxy"]}
    return compared_kinds(kinds, share=study.settings.core)
