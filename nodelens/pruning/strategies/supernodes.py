"""SCAR: FFN units pruned around the supernodes, those that the loss feels most."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nodelens.errors import InvalidValueError, ShapeError
from nodelens.metrics import get_metric
from nodelens.metrics.formulas.supernodes import (
    connectivity,
    information_with_core,
    read_connectivity,
    scar_conn,
    scar_prot,
    top_share,
)
from nodelens.model.layers import weight_rows
from nodelens.pruning.config import check_amount
from nodelens.pruning.given import Run, Tensors
from nodelens.pruning.masks import check_scores, protected_mask, row_mask
from nodelens.pruning.measured import lens_scores
from nodelens.pruning.registry import register_strategy
from nodelens.pruning.signals import core_first, core_moments
from nodelens.pruning.strategy import Protected, Strategy
from nodelens.statistics import CoMoments, Sample

__all__ = ["SupernodeConnectivity", "SupernodeProtection", "TwoHalo"]

_PAPER = "Supernodes and Halos (SCAR), arXiv 2604.23475"


@dataclass(frozen=True)
class _Block:
    """What is known of an FFN: `down` `(dimensions, units)`, `readers` `(units, dimensions)`."""

    down: Tensor
    proxy: Tensor
    core: Tensor
    redundancy: Tensor
    readers: tuple[Tensor, ...] = ()


class _Supernodes(Strategy):
    """Scores of FFN units: the loss proxy LP = E (u g)^2 / 2, less of it for what a core can do.

    The core are the `core` part of units with the highest LP. Each other unit is protected by
    floor + (1 - floor)(1 - rank^8), rank being that of its signal's information with the core's.
    Two passes over the batches, which are kept in memory. For one layer, a down projection, give
    `inputs=` and `gradients=` of the loss by them; the mask then keeps whole columns.
    """

    unit = "channels"
    needs = ("inputs", "loss")
    options: ClassVar[Mapping[str, Any]] = {
        "core": 0.01,
        "floor": 0.2,
        "write_fraction": 0.1,
        "loss": None,
    }
    core: float
    floor: float
    write_fraction: float
    loss: Any

    def _check(self) -> None:
        super()._check()
        for name in ("core", "write_fraction"):
            value = getattr(self, name)
            if not isinstance(value, float) or not 0 < value < 1:
                raise InvalidValueError(f"{name} is {value!r}, expected a part above 0, below 1")
        if isinstance(self.floor, bool) or not 0 <= self.floor <= 1:
            raise InvalidValueError(f"floor is {self.floor!r}, expected 0 to 1")

    @abstractmethod
    def _weighed(self, blocks: Sequence[_Block]) -> list[Tensor]:
        """Return the scores of every block's units; blocks are in forward order."""

    def _score(self, layer: nn.Module, given: Tensors) -> Tensor:
        """Return the score of every unit that a down projection takes in, `(units,)`."""
        inputs, gradients = given.inputs, given.gradients
        if inputs is None or gradients is None or inputs.shape != gradients.shape:
            raise InvalidValueError("it needs inputs= and gradients= of one shape, (rows, units)")
        q = (inputs.detach().double() * gradients.detach().double()).flatten(0, -2)
        proxy = q.square().mean(0) / 2
        core = top_share(proxy, self.core)
        moments = CoMoments.measure(
            Sample(q[:, core_first(core, len(proxy))]), start=0, stop=len(core)
        )
        return self._weighed([self._block(weight_rows(layer), proxy, core, moments)])[0]

    def mask(
        self,
        layer: nn.Module,
        score: Tensor,
        amount: float | None = None,
        *,
        protected: Protected = None,
    ) -> Tensor:
        """Return the mask of the weight that keeps whole columns: those of the units kept."""
        units = weight_rows(layer).shape[1]
        score = check_scores(score, f"a {type(layer).__name__}")
        if score.shape != (units,):
            raise ShapeError(f"scores of shape {tuple(score.shape)} for {units} units")
        amount = self.config.amount if amount is None else check_amount(amount)
        keep = self._keep_channels(score, amount, protected_mask(protected, units, "to prune"))
        return row_mask(layer, keep.expand(weight_rows(layer).shape))

    def _scores(self, run: Run) -> dict[str, Tensor]:
        blocks = {name: unit for name, unit in run.units.items() if unit.site == "input"}
        if not blocks:
            raise InvalidValueError(
                "it prunes the units of feed-forward blocks, and none is among the layers chosen: "
                "one or two layers that widen the same input, and one that brings it back"
            )
        model, kept = run.model, list(run.batches)
        options = dict(run.options) if self.loss is None else {**run.options, "loss": self.loss}
        proxy = lens_scores(get_metric("scar_loss_proxy"), model, blocks, kept, **options)
        cores = {name: top_share(own, self.core) for name, own in proxy.items()}
        moments = core_moments(model, kept, cores, self.loss)
        made = [
            self._block(
                weight_rows(model.torch_module(name)),
                proxy[name],
                cores[name],
                moments[name],
                tuple(weight_rows(model.torch_module(n)) for n in unit.feeders),
            )
            for name, unit in blocks.items()
        ]
        return dict(zip(blocks, self._weighed(made), strict=True))

    def _block(
        self,
        down: Tensor,
        proxy: Tensor,
        core: Tensor,
        moments: CoMoments,
        readers: tuple[Tensor, ...] = (),
    ) -> _Block:
        order = core_first(core, len(proxy))
        first = torch.arange(len(core))
        found = information_with_core(moments.m2.cpu(), moments.diagonal().cpu(), first)
        redundancy = torch.empty_like(found)
        redundancy[order] = found
        return _Block(down.cpu(), proxy.cpu(), core, redundancy, tuple(r.cpu() for r in readers))


@register_strategy("supernode_protection", aliases=("scar_prot",), paper=_PAPER)
class SupernodeProtection(_Supernodes):
    """SCAR-Prot, LP protect: what repeats the core's signal goes before what does not."""

    def _weighed(self, blocks: Sequence[_Block]) -> list[Tensor]:
        return [scar_prot(b.proxy, b.redundancy, self.floor, b.core) for b in blocks]


@register_strategy("supernode_connectivity", aliases=("scar_conn",), paper=_PAPER)
class SupernodeConnectivity(_Supernodes):
    """SCAR-Conn, LP (1 - conn + conn protect): repeating counts where a unit writes as the core.

    conn is the part of a unit's column of the down projection in the dimensions that the core
    writes most to, the `write_fraction` of all.
    """

    def _weighed(self, blocks: Sequence[_Block]) -> list[Tensor]:
        return [self._discounted(block, self._connected(block)) for block in blocks]

    def _connected(self, block: _Block) -> Tensor:
        return connectivity(block.down, block.core, self.write_fraction)

    def _discounted(self, block: _Block, connected: Tensor) -> Tensor:
        return scar_conn(block.proxy, connected, block.redundancy, self.floor, block.core)


@register_strategy("two_halo", paper=_PAPER)
class TwoHalo(SupernodeConnectivity):
    """SCAR-Conn with the read-halo beside the write-halo: conn is the higher of the two.

    The read connection is the part of a unit's rows in gate and up that lies in the dimensions
    that the core of the block before writes to; the first block has none.
    """

    def _weighed(self, blocks: Sequence[_Block]) -> list[Tensor]:
        found, before = [], None
        for block in blocks:
            connected = self._connected(block)
            if before is not None:
                reading = torch.stack([rows.double().abs() for rows in block.readers]).sum(0)
                read = read_connectivity(reading, before.down, before.core, self.write_fraction)
                connected = torch.maximum(connected, read)
            found.append(self._discounted(block, connected))
            before = block
        return found
