"""Which channels go together: dependency groups, from torch-pruning's graph of the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nodelens.data import Batch
from nodelens.errors import IncompatibleModelError, SurgeryError
from nodelens.model.layers import is_transposed_linear, named
from nodelens.model.session import alone
from nodelens.pruning.requests import Request

__all__ = ["Cuts", "Graph", "check_agreed", "transposed_linear_pruner"]

_FAULTS = (
    ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip
"""What torch-pruning raises for a model whose graph it cannot follow."""

_FOLLOWING = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.PReLU,
)
"""Modules that are narrowed with the layers before them and make no channels of their own."""


@dataclass
class Cuts:
    """What goes, by module name: numbers of outputs, and of inputs where these are others."""

    outputs: dict[str, set[int]] = field(default_factory=dict)
    inputs: dict[str, set[int]] = field(default_factory=dict)

    def add(self, other: Cuts) -> None:
        """Add what another cut removes."""
        for mine, theirs in ((self.outputs, other.outputs), (self.inputs, other.inputs)):
            for name, numbers in theirs.items():
                mine.setdefault(name, set()).update(numbers)

    @property
    def names(self) -> set[str]:
        """Return the names of all modules that are cut."""
        return {*self.outputs, *self.inputs}


class Graph:
    """torch-pruning's dependency graph of a model, asked by layer name.

    The model is put into evaluation mode and its weights made to require gradients, which the
    graph is traced by: give it a copy.
    """

    def __init__(self, model: nn.Module, batch: Batch) -> None:
        import torch_pruning

        self._names = {id(m): name for name, m in named(model).items()}
        self._modules = named(model)
        self._kinds = torch_pruning.ops.OPTYPE
        self._graph = torch_pruning.DependencyGraph()
        self._ends: list[Any] = []
        for p in model.parameters():
            p.requires_grad_(p.is_floating_point())
        try:
            with alone(), torch.enable_grad(), torch.random.fork_rng(devices=[]):
                self._graph.build_dependency(
                    model,
                    example_inputs=None,
                    forward_fn=lambda module, _: module(*batch.args, **batch.kwargs),
                    output_transform=self._differentiable,
                    customized_pruners=transposed_linear_pruner(model),
                    verbose=False,
                )
        except _FAULTS as fault:
            kind = type(model).__name__
            raise SurgeryError(f"torch-pruning cannot follow {kind}: {fault}") from fault

    def _differentiable(self, outputs: Any) -> list[Tensor]:
        from torch.utils._pytree import tree_leaves

        logits = getattr(outputs, "logits", None)
        leaves = [logits] if isinstance(logits, Tensor) else tree_leaves(outputs)
        found = [t for t in leaves if isinstance(t, Tensor) and t.grad_fn is not None]
        self._ends = [t.grad_fn for t in found]
        return found

    def cuts(self, request: Request) -> Cuts:
        """Return all that goes with what a request removes, itself included.

        Raises SurgeryError when these channels are the model's answer, IncompatibleModelError when
        something is in the way that can be neither silenced nor narrowed.
        """
        name, module = request.layer.name, self._modules[request.layer.name]
        pruner = self._graph.get_pruner_of_module(module)
        units = request.kind == "units"
        side = pruner.prune_in_channels if units else pruner.prune_out_channels
        found = Cuts()
        if not request.removed:
            return found
        try:
            group = self._graph.get_pruning_group(module, side, list(request.removed))
        except _FAULTS as fault:
            raise SurgeryError(
                f"layer {name!r}: torch-pruning finds no group for it: {fault}"
            ) from fault
        for dependency, numbers in group:
            self._note(found, name, dependency, numbers)
        return found

    def release(self) -> None:
        """Let go of the pass that the graph was traced by: it keeps the weights alive."""
        for node in self._graph.module2node.values():
            node.grad_fn = None
            if node.type == self._kinds.SLICE:
                node.module.grad_fn = None
        self._ends.clear()

    def _note(self, found: Cuts, name: str, dependency: Any, numbers: Iterable[int]) -> None:
        node, kinds = dependency.target, self._kinds
        makes = self._graph.is_out_channel_pruning_fn(dependency.handler)
        if node.type == kinds.OUTPUT or (makes and any(node.grad_fn is e for e in self._ends)):
            raise SurgeryError(
                f"layer {name!r}: its channels are the model's output, which has to stay whole"
            )
        if node.type == kinds.PARAMETER:
            raise IncompatibleModelError(
                f"layer {name!r}: its channels meet a parameter of shape "
                f"{tuple(node.module.shape)} that belongs to no known layer"
            )
        target = self._names.get(id(node.module))
        if target is None or node.type == kinds.ELEMENTWISE:
            return
        self._check_kind(name, target)
        pruner = self._graph.get_pruner_of_module(node.module)
        outputs = dependency.handler == pruner.prune_out_channels
        side = found.outputs if outputs else found.inputs
        side.setdefault(target, set()).update(numbers)

    def _check_kind(self, name: str, target: str) -> None:
        module = self._modules[target]
        layers = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *_FOLLOWING)
        if not isinstance(module, layers) and not is_transposed_linear(module):
            raise IncompatibleModelError(
                f"layer {name!r}: its channels are tied to those of {target!r}, and a "
                f"{type(module).__name__} cannot be shrunk"
            )
        if not isinstance(getattr(module, "weight", None), nn.Parameter) and not isinstance(
            module, _FOLLOWING
        ):
            raise IncompatibleModelError(
                f"layer {target!r} computes its weight from others: remove the parametrization "
                "before shrinking"
            )


def check_agreed(requests: Mapping[str, Request], groups: Mapping[str, Cuts]) -> None:
    """Raise SurgeryError, with both names, where a mask takes more of a layer than its own does."""
    every = Cuts()
    for cuts in groups.values():
        every.add(cuts)
    for name, request in requests.items():
        if request.kind == "heads":
            continue  # no other mask can be of the same channels
        side = _side(every, request)
        extra = side.get(name, set()) - set(request.removed)
        if extra:
            others = [o for o, c in groups.items() if extra & _side(c, request).get(name, set())]
            raise SurgeryError(
                f"the masks of {name!r} and {', '.join(map(repr, others))} disagree: their "
                f"channels go together, and channel {min(extra)} of {name!r} is kept by one and "
                "removed by the other; give them equal masks, or one of them alone"
            )


def _side(cuts: Cuts, request: Request) -> dict[str, set[int]]:
    return cuts.inputs if request.kind == "units" else cuts.outputs


def transposed_linear_pruner(model: nn.Module) -> dict[type[nn.Module], Any]:
    """Return how to prune GPT-2's transposed linear layer, where the model has one."""
    kinds = {type(m) for m in model.modules() if is_transposed_linear(m)}
    if not kinds:
        return {}
    from torch_pruning.pruner.function import BasePruningFunc

    class Transposed(BasePruningFunc):  # type: ignore[misc]
        """A linear layer whose weight is `(inputs, channels)`."""

        def prune_out_channels(self, layer: Any, idxs: Any) -> nn.Module:
            keep = _kept(layer.nf, idxs)
            layer.weight = self._prune_parameter_and_grad(layer.weight, keep, 1)
            layer.bias = self._prune_parameter_and_grad(layer.bias, keep, 0)
            layer.nf = len(keep)
            return layer  # type: ignore[no-any-return]

        def prune_in_channels(self, layer: Any, idxs: Any) -> nn.Module:
            keep = _kept(layer.nx, idxs)
            layer.weight = self._prune_parameter_and_grad(layer.weight, keep, 0)
            layer.nx = len(keep)
            return layer  # type: ignore[no-any-return]

        def get_out_channels(self, layer: Any) -> int:
            return int(layer.nf)

        def get_in_channels(self, layer: Any) -> int:
            return int(layer.nx)

    return {kind: Transposed() for kind in kinds}


def _kept(width: int, removed: Iterable[int]) -> list[int]:
    gone = set(removed)
    return [i for i in range(width) if i not in gone]
