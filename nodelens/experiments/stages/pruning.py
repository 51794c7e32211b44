"""What is left of the network as channels are pruned, by strategy, beside chance."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from nodelens.configs import Config
from nodelens.errors import NodeLensError
from nodelens.experiments.artifacts import PRUNING, PRUNING_PROTOCOL
from nodelens.experiments.judging import check_protocol, judge, measured_on, protocol_of
from nodelens.experiments.kept import KeptRows, Row
from nodelens.experiments.networks import build_network
from nodelens.experiments.orders import Order, code_of, orders, section_of
from nodelens.experiments.paired import interval
from nodelens.experiments.provenance import package_code, source_code
from nodelens.experiments.pruned import Mask, Pruner
from nodelens.experiments.pruning_section import leave_pruning_section
from nodelens.experiments.shrunk import check_cuttable, chosen, save_smallest
from nodelens.experiments.stage import Run, Stage
from nodelens.experiments.stages.evaluation import EvaluationStage
from nodelens.model import ModelWrapper
from nodelens.model.fingerprint import model_fingerprint
from nodelens.pruning.units import prunable

__all__ = ["PruningStage", "pruning_stages"]

_OF_EVERY_ROW = {"distribution", "layers", "value", "fine_tuning"}


def pruning_stages(config: Config) -> list[Stage]:
    """Return the stages that the sections `evaluation` and `pruning` ask for, each if it is there.

    They need the stages `data` and `network` before them.
    """
    evaluated: list[Stage] = [EvaluationStage()] if config.evaluation is not None else []
    return [*evaluated, PruningStage()] if config.pruning is not None else evaluated


class PruningStage(Stage):
    """Writes what every pruned network does on test rows, and the smallest one when asked for.

    Rows are kept in `checkpoints/` as they come: a killed stage goes on behind the last one.
    """

    name = "pruning"
    needs = ("data", "network")
    code = (
        "data",
        "model",
        "statistics",
        "metrics",
        "interventions",
        "pruning",
        "lens.py",
        "stream.py",
        "reading.py",
        "composite.py",
        "aggregator.py",
        "experiments/judging.py",
        "experiments/orders.py",
        "experiments/pruned.py",
        "experiments/pruning_section.py",
        "experiments/shrunk.py",
        "experiments/stages/pruning.py",
    )

    def check(self, run: Run) -> None:
        _check_layers(run, orders(run.config))
        check_protocol(run)

    def settings(self, run: Run) -> Any:
        section = section_of(run.config)
        return {
            "pruning": section.model_dump(mode="json"),
            "seed": run.config.experiment.seed,
            "protocol": protocol_of(run.config),
            "code": package_code(code_of(orders(run.config))),
        }

    def protocol(self, config: Config) -> str:
        section = section_of(config)
        seeds = ", ".join(map(str, section.random_seeds)) or "(none)"
        tuned = (
            " Fine-tuned networks are trained with their mask on the training rows, the epoch"
            " chosen on the validation rows."
            if section.fine_tuning is not None
            else ""
        )
        smallest = (
            " The network that is cut out is the best on the validation rows of those at the"
            " largest amount, chance apart."
            if section.shrink
            else ""
        )
        return (
            "Channels are scored on the calibration rows and silenced in the pass (value:"
            f" {section.value}), behind BatchNorm; an FFN's units at its down projection. No"
            f" weight is written, and test rows choose nothing. Random choices: seeds {seeds}."
            f"{tuned}{smallest} {protocol_of(config)}"
        )

    def run(self, run: Run) -> str:
        import pandas as pd

        pruner, found = Pruner(run), orders(run.config)
        if section_of(run.config).shrink:
            check_cuttable(run, pruner, found)
        kept = KeptRows(run, self.name, _about(run, found, self.code))
        rows = list(_rows(run, pruner, found, kept))
        table = pd.DataFrame(rows).astype({"seed": "Int64", "channels": "Int64"})
        run.folder.write_table(PRUNING, table)
        best = chosen(run, found, rows)
        about = _summary(run, table, self.protocol(run.config))
        if best is not None:
            about["shrunk"] = save_smallest(run, pruner, best)
        run.folder.write_json(PRUNING_PROTOCOL, about)
        return _told(run, found, table)

    def show(self, run: Run) -> None:
        leave_pruning_section(run, self.name)

    def tidy(self, run: Run) -> None:
        KeptRows.place(run, self.name).unlink(missing_ok=True)


def _check_layers(run: Run, found: list[Order]) -> None:
    """Raise ConfigError unless `layers` names what there is to prune."""
    layers = section_of(run.config).layers
    if layers is None:
        return
    model = ModelWrapper(build_network(run.config, run.splits))
    model.route(model.prepare_batch(run.splits.train.tensors[0][:2]))
    for heads in {order.strategy.of_heads for order in found}:
        try:
            prunable(model, list(layers), heads=heads)
        except NodeLensError as error:
            raise run.config.error(("pruning", "layers"), str(error)) from error


def _about(run: Run, found: list[Order], code: tuple[str, ...]) -> dict[str, Any]:
    """Return what decides every row; strategies, modes, seeds and amounts decide one each."""
    section = section_of(run.config)
    return {
        "model": model_fingerprint(run.network),
        "data": run.splits.fingerprint,
        "section": section.model_dump(mode="json", include=_OF_EVERY_ROW),
        "seed": run.config.experiment.seed,
        "protocol": protocol_of(run.config),
        "code": [source_code(*code), package_code(code_of(found))],
    }


def _rows(run: Run, pruner: Pruner, found: list[Order], kept: KeptRows) -> Iterator[Row]:
    section = section_of(run.config)
    yield kept.row("dense", lambda: _row("dense", "dense", None, 0.0) | judge(run, pruner.model))
    total = len(found) * len(section.amounts)
    for number, order in enumerate(found):
        for step, amount in enumerate(section.amounts):
            yield from _point(run, pruner, order, amount, kept)
            run.advance(number * len(section.amounts) + step + 1, total)


def _point(run: Run, pruner: Pruner, order: Order, amount: float, kept: KeptRows) -> Iterator[Row]:
    """Yield the rows of one order at one amount: masked, and trained again where that is asked."""
    section = section_of(run.config)
    choosing = section.shrink and amount == max(section.amounts) and not order.is_chance
    splits = ["test", "validation"] if choosing else ["test"]
    for tuned in (False, True) if section.fine_tuning is not None else (False,):
        key = [repr(order.strategy), order.label, order.mode, order.seed, amount, tuned, splits]
        make = partial(_measured, run, pruner, order, amount, tuned, splits)
        rows = kept.row(key, make)
        yield from rows["rows"]


def _measured(
    run: Run, pruner: Pruner, order: Order, amount: float, tuned: bool, splits: list[str]
) -> Row:
    mask = pruner.mask(order, amount)
    model = pruner.tuned(mask) if tuned else pruner.model
    condition = None if tuned else pruner.condition(mask)
    head = _row(order.label, order.mode, order.seed, amount, tuned, mask)
    judged = {split: judge(run, model, condition, split=split) for split in splits}
    return {"rows": [head | {"split": split} | found for split, found in judged.items()]}


def _row(
    strategy: str,
    mode: str,
    seed: int | None,
    amount: float,
    tuned: bool = False,
    mask: Mask | None = None,
) -> Row:
    return {
        "strategy": strategy,
        "mode": mode,
        "seed": seed,
        "amount": amount,
        "tuned": tuned,
        "split": "test",
        "silenced": 0 if mask is None else mask.silenced,
        "channels": None if mask is None else mask.channels,
    }


def _summary(run: Run, table: Any, protocol: str) -> dict[str, Any]:
    """Return protocol, the whole network, and chance with Student's interval over its seeds."""
    metric = "perplexity" if run.config.is_language_model else "accuracy"
    dense = table[table["strategy"] == "dense"].iloc[0]
    chance = []
    for (amount, tuned), rows in table[table["mode"] == "random"].groupby(["amount", "tuned"]):
        entry: dict[str, Any] = {"amount": amount, "tuned": bool(tuned), "seeds": len(rows)}
        for name in (metric, "loss"):
            ends = interval([float(value) for value in rows[name]])
            entry[name] = dict(zip(("mean", "low", "high"), ends, strict=True))
        chance.append(entry)
    return {
        "protocol": protocol,
        "metric": metric,
        "dense": {name: float(dense[name]) for name in (metric, "loss")},
        "random": chance,
    }


def _told(run: Run, found: list[Order], table: Any) -> str:
    amounts = section_of(run.config).amounts
    tested = table[(table["split"] == "test") & (table["mode"] != "random")]
    metric = "perplexity" if run.config.is_language_model else "accuracy"
    last = tested[tested["amount"] == max(amounts)][metric]
    ends = f"{last.min():.3g} to {last.max():.3g}{measured_on(run.config)}"
    return (
        f"{len(found)} orders at {len(amounts)} amounts; {metric} at {max(amounts):.0%} from {ends}"
    )
