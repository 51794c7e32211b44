"""The smallest network that was asked for, cut out and saved."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from nodelens.errors import SurgeryError
from nodelens.experiments.artifacts import SHRUNK
from nodelens.experiments.judging import judge
from nodelens.experiments.kept import Row
from nodelens.experiments.orders import Order
from nodelens.experiments.pruned import Mask, Pruner
from nodelens.experiments.stage import Run
from nodelens.model import ModelWrapper
from nodelens.pruning import Shrunk, save_shrunk, shrink

__all__ = ["check_cuttable", "chosen", "save_smallest"]

REPORT = f"{SHRUNK}/report.json"


def chosen(run: Run, found: list[Order], rows: list[Row]) -> tuple[Order, Row] | None:
    """Return the order whose smallest network has the least loss on validation rows, and that row.

    None where nothing is to be cut out.
    """
    judged = [row for row in rows if row["split"] == "validation"]
    if not judged:
        return None
    best = min(judged, key=lambda row: float(row["loss"]))
    wanted = (best["strategy"], best["mode"])
    return next(order for order in found if (order.label, order.mode) == wanted), best


def check_cuttable(run: Run, pruner: Pruner, found: list[Order]) -> None:
    """Raise ConfigError where the smallest network could not be cut out, before the others are.

    Tried on the first order that is not chance.
    """
    order = next(order for order in found if not order.is_chance)
    try:
        _cut(pruner, pruner.model, pruner.mask(order, max(pruner.section.amounts)), rounds=0)
    except SurgeryError as error:
        raise run.config.error(
            ("pruning", "shrink"),
            f"{error}; pruning.layers can name layers whose channels belong to no other",
        ) from error


def _cut(pruner: Pruner, model: ModelWrapper, mask: Mask, rounds: int = 5) -> Shrunk:
    example = next(iter(pruner.calibration))
    return shrink(model, mask.keep, example, uniform=False, rounds=rounds)


def save_smallest(run: Run, pruner: Pruner, best: tuple[Order, Row]) -> dict[str, Any]:
    """Write the network that was chosen, without the channels, and return what there is to say.

    It is saved by `save_pretrained` where a configuration says all of it, else by `save_shrunk`.
    What goes with the channels, as through a residual stream, can cost more than masking them: so
    the smaller network itself is judged on test rows. Raises SurgeryError where it cannot be cut.
    """
    order, row = best
    mask = pruner.mask(order, row["amount"])
    model = pruner.tuned(mask) if row["tuned"] else pruner.model
    small = _cut(pruner, model, mask)
    folder = run.folder.path(SHRUNK)
    for path in folder.glob("*"):
        path.unlink()
    if small.report.pretrained:
        pretrained: Any = small.model
        pretrained.save_pretrained(folder)
    else:
        save_shrunk(small, folder)
    run.folder.note(f"{SHRUNK}/{path.name}" for path in sorted(folder.iterdir()))
    told = {
        "strategy": row["strategy"],
        "mode": row["mode"],
        "amount": row["amount"],
        "tuned": row["tuned"],
        "validation_loss": row["loss"],
        "loaded_by": "from_pretrained"
        if small.report.pretrained
        else "nodelens.pruning.load_shrunk",
        "test": judge(run, ModelWrapper(small.model)),
    }
    run.folder.write_json(REPORT, {**told, **asdict(small.report)})
    sizes = {name: asdict(getattr(small.report, name)) for name in ("parameters", "macs")}
    return {**told, **sizes}
