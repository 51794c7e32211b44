"""Every lens against its float64 oracle, over networks that are awkward in different ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from nodelens import CompositeLens, Lens, LensResult
from tests.lenses.agreement import ENTRIES, Entry
from tests.lenses.networks import CASES, SPLITS, Case
from tests.oracles import activation, alignment, spectrum
from tests.oracles.capture import Array, Captured, capture
from tests.oracles.rows import pixels

FLOATS = {"float32": torch.float32, "float64": torch.float64}
Runs = tuple[tuple[str, str], ...]
RUNS: Runs = (("float32", "one batch"), ("float32", "ragged"), ("float64", "ragged"))
"""The precision of a run, and how its 48 samples are cut."""
FAST: dict[str, Runs] = {
    "mlp": RUNS[1:2],
    "mlp, two numbers": RUNS[1:],
    "tokens": RUNS[1:],
    "conv2d, zeros": RUNS[1:],
}
"""The networks of the fast tests, and how they are run there; the slow tests do the rest."""
RELATIVE = {"float32": 1e-5, "float64": 1e-9}
FLOAT64_NEAR_ZERO = 1e-12


def _tried(case: Case, runs: Runs, *marks: Any) -> list[Any]:
    # A network's tests share what is measured of it, so one process runs them all.
    marked = [pytest.mark.xdist_group(case.name), *marks]
    name = " and ".join(sorted({precision for precision, _ in runs}))
    return [
        pytest.param(case, entry, runs, marks=marked, id=f"{case}-{name}-{entry}")
        for entry in ENTRIES
        if runs and entry.fits(case.kind)
    ]


TRIED = [
    *(param for case in CASES for param in _tried(case, FAST.get(case.name, ()))),
    *(
        param
        for case in CASES
        for param in _tried(
            case, tuple(r for r in RUNS if r not in FAST.get(case.name, ())), pytest.mark.slow
        )
    ),
]

# "same" padding with an even kernel makes torch copy the input, and say so.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


@cache
def measured(case: str, precision: str, split: str) -> tuple[dict[str, str], LensResult]:
    """The scores of all lenses, measured in one composite, and the label of each lens."""
    one, dtype = named(case), FLOATS[precision]
    entries = [entry for entry in ENTRIES if entry.fits(one.kind)]
    composite = CompositeLens([entry.make() for entry in entries])
    given = [batch for batch, _ in one.batches(SPLITS[split], dtype)]
    labels = dict(zip(map(str, entries), composite.labels, strict=True))
    return labels, composite.run(one.make(dtype), given, progress=False)


@cache
def seen(case: str, precision: str) -> Mapping[str, Captured]:
    one, dtype = named(case), FLOATS[precision]
    plain = [batch for _, batch in one.batches(SPLITS["ragged"], dtype)]
    return capture(one.make(dtype), plain)


@cache
def expected(case: str, precision: str, entry: int) -> dict[str, Array]:
    return {
        name: ENTRIES[entry].oracle(captured) for name, captured in seen(case, precision).items()
    }


def named(case: str) -> Case:
    return next(one for one in CASES if one.name == case)


def test_every_lens_is_tried_on_every_kind_of_layer_in_the_fast_tests():
    fast = [param.values[:2] for param in TRIED if len(param.marks) == 1]
    for name in {entry.lens for entry in ENTRIES}:
        tried = {case.name for case, entry in fast if entry.lens == name}
        assert {"tokens", "conv2d, zeros"} < tried, name


@pytest.mark.parametrize(("case", "entry", "runs"), TRIED)
def test_a_lens_agrees_with_its_oracle(case: Case, entry: Entry, runs: Runs):
    for precision, split in runs:
        labels, result = measured(case.name, precision, split)
        wanted = expected(case.name, precision, ENTRIES.index(entry))
        got = result.scores(labels[str(entry)])
        assert set(got) == set(wanted)
        for layer, values in wanted.items():
            np.testing.assert_allclose(
                got[layer].numpy(),
                values,
                rtol=RELATIVE[precision],
                atol=entry.near_zero if precision == "float32" else FLOAT64_NEAR_ZERO,
                err_msg=f"layer {layer}, {precision}, {split}",
            )


def _change(captured: Captured, before: Array) -> Array:
    return captured.weight - before.reshape(captured.weight.shape)


SPECTRUM = np.array([5.0, 2.0, 1.0, 0.5])
GIVEN: dict[str, Callable[[Captured, Array], Array]] = {
    "delta_alignment": lambda c, w: alignment.rayleigh_quotient(c, weight=_change(c, w)),
    "normalized_delta_alignment": lambda c, w: (
        alignment.rayleigh_quotient(c, weight=_change(c, w)) / np.linalg.norm(_change(c, w), axis=1)
    ),
    "eigenvalue_alignment": lambda c, _: np.array(spectrum.overlap(pixels(c.outputs), SPECTRUM)),
    "activation_outlier_index": lambda c, _: activation.outlier_index(pixels(c.outputs), 1.0),
}
"""What is compared with something from outside, and what is sketched to a hundredth."""


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("case", ["mlp", "tokens", "conv2d, zeros"])
def test_a_lens_that_is_given_something_or_sketches_agrees_too(case: str, name: str):
    model, captured = named(case).make(torch.float64), seen(case, "float64")
    generator = torch.Generator().manual_seed(1)
    before = {k: torch.randn(v.shape, generator=generator) for k, v in model.state_dict().items()}
    lens = Lens.from_name(name, **({"q": 1.0} if "outlier" in name else {}))
    offered = {
        "initial_weights": before,
        "reference": {layer: torch.from_numpy(SPECTRUM) for layer in captured},
    }
    options = {key: value for key, value in offered.items() if key in lens.prepare_options()}
    given = [batch for batch, _ in named(case).batches(SPLITS["ragged"], torch.float64)]
    result = lens.run(model, given, progress=False, **options)
    for layer, shown in captured.items():
        expected = GIVEN[name](shown, before[f"{layer}.weight"].double().numpy())
        near = 1e-2 if "outlier" in name else 1e-9
        np.testing.assert_allclose(result[layer][name], expected, rtol=near, err_msg=layer)


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=[] if c.name in FAST else [pytest.mark.slow]) for c in CASES],
    ids=str,
)
def test_rows_are_what_the_layer_really_gave(case: Case):
    given = [batch for batch, _ in case.batches(SPLITS["ragged"], torch.float32)]
    lens = Lens.from_name("activation_mean")
    result = lens.run(case.make(torch.float32), given, progress=False)
    for name, captured in seen(case.name, "float32").items():
        outputs = captured.outputs
        assert result.rows[name] == outputs.size // outputs.shape[1]


ALONE = {True: "conv2d, zeros", False: "mlp, two numbers"}
"""The network an entry is tried on by itself, by whether it makes sense for classes."""


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(entry, marks=pytest.mark.xdist_group(ALONE[entry.fits("classes")]))
        for entry in ENTRIES
    ],
    ids=str,
)
def test_a_lens_alone_gives_what_it_gives_in_company(entry: Entry):
    case = named(ALONE[entry.fits("classes")])
    labels, together = measured(case.name, "float64", "ragged")
    given = [batch for batch, _ in case.batches(SPLITS["ragged"], torch.float64)]
    alone = entry.make().run(case.make(torch.float64), given, progress=False)
    for layer, scores in together.scores(labels[str(entry)]).items():
        assert torch.equal(alone[layer][entry.lens], scores)
