"""The passes of a run: what each measures, scored when it ends, and all scores put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nodelens.lens import Lens
from nodelens.model.gather import Measured
from nodelens.model.wrapper import ModelWrapper
from nodelens.plan.packing import Remarks, Share
from nodelens.reading import ReadingLens
from nodelens.result import LensResult
from nodelens.statistics.read import Read

__all__ = ["OnePass", "Passes", "Step"]

Label = Callable[[str, Lens, str], str]
"""(label of the part, the part, its own name of a score) -> the name of the score."""


@dataclass
class Ledger:
    """What the passes so far have brought: the scores and remarks of every share."""

    found: dict[Share, tuple[dict[str, Tensor], Remarks]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def close(self, result: LensResult) -> None:
        """Take in what is known of a pass as a whole."""
        self.notes += [note for note in result.notes if note not in self.notes]
        for layer, rows in result.rows.items():
            self.rows[layer] = max(rows, self.rows.get(layer, 0))

    def blocks(self) -> dict[tuple[int, str], list[Share]]:
        """Return the shares by part and layer, each from the first channel to the last."""
        blocks: dict[tuple[int, str], list[Share]] = {}
        for share in sorted(self.found, key=lambda share: share.block or (0, 0)):
            blocks.setdefault((share.number, share.layer.name), []).append(share)
        return blocks

    def joined(self, shares: Sequence[Share]) -> dict[str, Tensor]:
        """Return the scores of one part at one layer, over all its channels."""
        blocks = [self.found[share][0] for share in shares]
        return {name: _together([block[name] for block in blocks]) for name in blocks[0]}

    def remarked(self, shares: Sequence[Share]) -> list[str]:
        """Return the notes of one part on one layer."""
        remarks = [self.found[share][1] for share in shares]
        return shares[0].lens.remark_on(shares[0].layer.name, remarks)


class OnePass(ReadingLens):
    """The part of a lens that one pass measures; to all who ask, the lens itself."""

    def __init__(self, lens: Lens, shares: Sequence[Share], ledger: Ledger) -> None:
        super().__init__()
        self.lens, self.shares, self.ledger = lens, shares, ledger
        vars(self)["name"] = lens.name  # errors and files speak of the lens

    def __getstate__(self) -> dict[str, Any]:
        # What earlier passes brought does not travel to a hosted model.
        return {**vars(self), "ledger": Ledger()}

    @property
    def lenses(self) -> list[Lens]:
        """Return the lenses that score what the pass measures, which a hosted model has to know."""
        return [share.lens for share in self.shares if isinstance(share.lens, Lens)]

    @property
    def params(self) -> dict[str, Any]:
        return self.lens.params

    def spec(self) -> dict[str, Any]:
        return {**self.lens.spec(), "pass": [share.to_json() for share in self.shares]}

    def prepare(self, model: Any, **kwargs: Any) -> ModelWrapper:
        """Return the model as the lens prepares it."""
        return self.lens.prepare(model, **kwargs)

    def prepare_options(self) -> set[str]:
        return self.lens.prepare_options()

    def intervene_options(self) -> set[str]:
        return self.lens.intervene_options()

    def refusal(self, model: ModelWrapper) -> str | None:
        return self.lens.refusal(model)

    def left_out(self, model: ModelWrapper) -> list[str]:
        return self.lens.left_out(model)

    def score_units(self, score: str) -> tuple[str, int]:
        return "", 0

    def wanted(self, model: ModelWrapper) -> dict[str, list[Read]]:
        wanted: dict[str, list[Read]] = {}
        for share in self.shares:
            wanted.setdefault(share.layer.name, []).extend(share.reads)
        return wanted

    def finish(self, statistics: Measured) -> dict[str, dict[str, Tensor]]:
        """Put the scores of the pass into the ledger, after which the statistics can go."""
        for share in self.shares:
            found = statistics[share.layer.name]
            scores, remarks = share.lens.score_part(found, share.block)
            self.ledger.found[share] = {k: v.cpu() for k, v in scores.items()}, remarks
        return {layer: {} for layer in statistics}


def _together(blocks: Sequence[Tensor]) -> Tensor:
    """Scores of channels one block after the other; of a layer's number, blocks have shares."""
    return torch.cat(list(blocks)) if blocks[0].ndim else torch.stack(list(blocks)).sum(0)


@dataclass(frozen=True)
class Step:
    """One lens of several that are run one after the other, with the options it takes.

    `name` tells its file from the others', empty where it is the only one; `part` is the number of
    the lens of a composite that it is, None for a pass of many.
    """

    name: str
    lens: Lens
    options: Mapping[str, Any] = field(default_factory=dict)
    part: int | None = None

    def file(self, path: str | Path) -> Path:
        """Return where the step is saved: beside the file of the whole, `path`."""
        whole = Path(path)
        return whole.with_name(f"{whole.stem}.{self.name}{whole.suffix}") if self.name else whole


class Passes:
    """The steps of a run of `lens` over `model`, and what they brought so far.

    `parts` are the lenses with their labels, `layers` those of the passes, in forward order.
    """

    def __init__(
        self,
        lens: Lens,
        model: Any,
        steps: Sequence[Step],
        ledger: Ledger | None = None,
        parts: Sequence[tuple[str, Lens]] = (),
        layers: Sequence[str] = (),
        label: Label = lambda label, part, score: score,
    ) -> None:
        self.lens, self.model, self.steps = lens, model, list(steps)
        self.ledger = ledger or Ledger()
        self.parts, self.layers, self.label = parts, layers, label
        self.results: dict[int | None, LensResult] = {}

    def take(self, step: Step, result: LensResult) -> None:
        """Take in the result of a step."""
        self.ledger.close(result)
        self.results[step.part] = result

    def result(self) -> LensResult:
        """Return the result of all steps, as that of a single one would be."""
        if len(self.steps) == 1:
            return self.results[self.steps[0].part]
        ledger, layers = self.ledger, self.layers
        scores: dict[str, dict[str, Tensor]] = {layer: {} for layer in layers}
        notes, blocks = list(ledger.notes), ledger.blocks()
        for number, (name, part) in enumerate(self.parts):
            theirs: Mapping[str, Mapping[str, Tensor]] = self.results.get(number, {})
            for layer in [*layers, *(layer for layer in theirs if layer not in layers)]:
                shares = blocks.get((number, layer), [])
                found = ledger.joined(shares) if shares else theirs.get(layer, {})
                named = {self.label(name, part, k): v for k, v in found.items()}
                scores.setdefault(layer, {}).update(named)
                notes += ledger.remarked(shares) if shares else []
        return _result(self.lens, scores, notes, ledger.rows)


def _result(
    lens: Lens,
    scores: Mapping[str, Mapping[str, Tensor]],
    notes: Sequence[str],
    rows: Mapping[str, int],
) -> LensResult:
    """The scores with what the lens says of them."""
    names = sorted({name for layer in scores.values() for name in layer})
    described = {name: lens.score_units(name) for name in names}
    return LensResult(
        scores,
        lens=lens.name,
        params=lens.spec()["params"],
        units={name: unit for name, (unit, _) in described.items()},
        importance={name: keep for name, (_, keep) in described.items()},
        notes=notes,
        rows={layer: rows.get(layer, 0) for layer in scores},
    )
