"""The figures of a `pruning` section: what is left of the network, by strategy, beside chance."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from nodelens import figures
from nodelens.experiments.artifacts import RunResults

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["pruning_curves"]

_WORDS = {"low": "lowest scores first", "high": "highest scores first"}
_TUNED = {False: "", True: ", fine-tuned"}


def pruning_curves(results: RunResults) -> list[tuple[dict[str, str], Callable[[], Axes]]]:
    """Return the figures of a run that pruned, none of another: what each shows, and its drawing.

    One for each mode, masked and fine-tuned apart.
    """
    table = results.pruning
    if table is None or "accuracy" not in table:
        return []
    chance = results.dataset["guessing_accuracy"]
    tested = table[table["split"] == "test"]
    drawings: list[tuple[dict[str, str], Callable[[], Axes]]] = []
    for mode, words in _WORDS.items():
        for tuned, more in _TUNED.items():
            rows = tested[(tested["tuned"] == tuned) & tested["mode"].isin([mode, "random"])]
            if not (rows["mode"] == mode).any():
                continue
            name = f"pruning_{mode}{'_tuned' * tuned}"
            alt = f"Test accuracy against the share of channels pruned, {words}{more}."
            entry = {"name": name, "file": f"figures/{name}", "kind": "curve", "alt": alt}
            curves = _from_dense(rows, tested)
            drawings.append((entry, partial(figures.plot_sensitivity, curves, chance=chance)))
    return drawings


def _from_dense(rows: pd.DataFrame, tested: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the whole network at the beginning of every line."""
    import pandas as pd

    dense = tested[tested["strategy"] == "dense"].iloc[0]
    starts = rows.drop_duplicates(["strategy", "mode", "seed"]).assign(amount=0.0)
    starts = starts.assign(accuracy=dense["accuracy"])
    return pd.concat([starts, rows]).rename(columns={"strategy": "score"})
