"""Paired tests against SciPy and by hand, Holm against statsmodels' published example, LaTeX."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel, wilcoxon

from nodelens.errors import UnknownNameError
from nodelens.experiments import compare, comparison
from nodelens.experiments.latex import latex_table
from nodelens.experiments.paired import holm, interval, paired_tests


def by_seed(values) -> dict[int, float]:
    return dict(enumerate(float(v) for v in values))


def test_p_values_are_scipys_of_the_same_pairs():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=8), rng.normal(0.6, 1, size=8)
    # Pairs, not places: another order of seeds, and a seed that one of them lacks.
    shuffled = {seed: float(other[seed]) for seed in (5, 2, 7, 0, 1, 6, 3, 4)} | {9: 50.0}
    (row,) = paired_tests("accuracy", {"a": by_seed(one), "b": shuffled}).to_dict("records")
    assert (row["runs"], row["note"]) == (8, "1 without a pair")
    assert row["difference"] == pytest.approx(np.mean(one - other))
    assert (row["low"], row["high"]) == pytest.approx(interval(list(one - other))[1:])
    assert row["t_p"] == pytest.approx(ttest_rel(one, other).pvalue) == pytest.approx(row["t_holm"])
    assert row["wilcoxon_p"] == pytest.approx(wilcoxon(one - other).pvalue)


def test_all_of_six_pairs_apart_one_way_is_one_in_32():
    table = paired_tests("x", {"a": by_seed([1, 2, 3, 4, 5, 6]), "b": by_seed([0] * 6)})
    assert table["wilcoxon_p"][0] == pytest.approx(2 / 2**6)


@pytest.mark.parametrize(
    ("gaps", "t_made", "wilcoxon_made", "note"),
    [
        ([1.0], False, False, "t needs 3 runs; wilcoxon needs 6 runs"),
        ([1.0, 2.0], False, False, "t needs 3 runs; wilcoxon needs 6 runs"),
        ([1.0, 2.0, 4.0], True, False, "wilcoxon needs 6 runs"),
        ([0.0, 1, 2, 3, 4, 5], True, False, "wilcoxon needs 6 runs that differ"),
        ([0.5] * 7, False, False, "every pair differs by the same, so nothing is tested"),
        ([0.0] * 7, False, False, "every pair differs by the same, so nothing is tested"),
    ],
)
def test_what_too_few_runs_cannot_tell_is_said_and_not_computed(gaps, t_made, wilcoxon_made, note):
    found = paired_tests("x", {"a": by_seed(gaps), "b": by_seed([0] * len(gaps))})
    assert found["runs"][0] == len(gaps) and found["note"][0] == note
    assert found["t_p"].notna()[0] == t_made and found["t_holm"].notna()[0] == t_made
    assert found["wilcoxon_p"].notna()[0] == wilcoxon_made


@pytest.mark.parametrize(
    ("other", "runs", "note"),
    [
        ({1: 2.0}, 0, "no pair in common, so nothing is tested; 2 without a pair"),
        ({0: float("nan")}, 1, "a pair is not a number, so nothing is tested"),
    ],
)
def test_what_has_no_pair_or_no_number_is_said(other, runs, note):
    (row,) = paired_tests("x", {"a": {0: 1.0}, "b": other}).to_dict("records")
    assert (row["runs"], row["note"]) == (runs, note)
    assert all(np.isnan(row[key]) for key in ("difference", "low", "t_p", "wilcoxon_holm"))


def test_the_same_seed_twice_in_a_condition_is_noted(many, tmp_path):
    again = folder(tmp_path / "again", "plain", 0, 0.5, {"size low": 0.8})
    found = compare([*many, again])
    assert [note for note in found.notes if "the same seed (0)" in note]
    assert "the same seed (0)" in found._repr_html_()
    assert not [note for note in compare(many).notes if "the same seed" in note]


def test_holm_by_hand():
    # Sorted .01 .02 .03 .04: times 4 3 2 1, none below the one before.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []
    kept = holm([float("nan"), 0.02, float("nan")])
    assert kept[1] == 0.02 and np.isnan(kept[0]) and np.isnan(kept[2])


def test_a_table_for_papers_is_escaped_and_puts_intervals_in_one_column():
    table = pd.DataFrame(
        {
            "a_measure": ["x_1 & 50%", "y"],
            "mean": [0.12345, 2.0],
            "low": [0.1, float("nan")],
            "high": [0.2, float("nan")],
            "same": [True, False],
        }
    )
    lines = latex_table(table).splitlines()
    assert lines[0] == "\\begin{tabular}{llll}" and "\\toprule" in lines
    assert "a measure & mean & 95\\% interval & same \\\\" in lines
    assert "x\\_1 \\& 50\\% & 0.123 & [0.1, 0.2] & yes \\\\" in lines
    assert "y & 2 & -- & no \\\\" in lines


def folder(root: Path, name: str, seed: int, accuracy: float, curve: dict[str, float]) -> Path:
    """The files of a run that a comparison reads, with accuracies at one amount by order."""
    root /= f"{name}-{seed}"
    (root / "results").mkdir(parents=True)
    about = {"experiment": name, "seed": seed, "stages": {}, "format": 1}
    (root / "provenance.json").write_text(json.dumps(about))
    (root / "experiment_config.yaml").write_text(CONFIG)
    network = {"name": "mlp", "test_accuracy": accuracy}
    (root / "results/network.json").write_text(json.dumps(network))
    data = {"name": "digits", "fingerprint": "f"}
    (root / "results/dataset.json").write_text(json.dumps(data))
    (root / "results/channels.csv").write_text("layer,channel,size\nfc,0,1\nfc,1,2\n")
    rows = [
        f"test,{score},{mode},0,{amount},{value if amount else accuracy}"
        for (score, _, mode), value in ((k.partition(" "), v) for k, v in curve.items())
        for amount in (0.0, 0.5)
    ]
    rows += [f"validation,size,low,0,{amount},0" for amount in (0.0, 0.5)]
    table = "\n".join(["split,score,mode,seed,amount,accuracy", *rows])
    (root / "results/sensitivity.csv").write_text(table)
    return root


CONFIG = """\
experiment: {name: x}
model: {name: mlp}
dataset: {name: digits}
lenses: [weight_magnitude]
output: {directory: out}
"""


@pytest.fixture
def many(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(1)
    return [
        folder(
            tmp_path,
            name,
            seed,
            0.9 + shift + 0.01 * rng.normal(),
            {"size low": 0.8 + 0.02 * rng.normal(), "random random": 0.5 + 0.02 * rng.normal()},
        )
        for name, shift in (("plain", 0.0), ("wide", 0.05))
        for seed in range(6)
    ]


def test_a_comparison_averages_and_tests_conditions_apart(many, tmp_path):
    found = compare(many)
    assert found.networks[["experiment", "measure", "runs"]].values.tolist() == [
        ["plain", "test_accuracy", 6],
        ["wide", "test_accuracy", 6],
    ]
    assert not found.agreement["same_network"].any(), "no network is on record"
    assert found.curves["runs"].eq(6).all() and len(found.curves) == 2 * 2 * 2
    tests = found.tests.set_index("measure")
    assert tests.index.tolist() == [
        "accuracy when silenced, plain",
        "accuracy when silenced, wide",
        "test_accuracy",
    ]
    assert compare(many[:6]).tests["measure"].tolist() == ["accuracy when silenced"]
    orders, networks = tests.iloc[0], tests.loc["test_accuracy"]
    assert (orders["condition"], orders["other"]) == ("size, low first", "random")
    assert orders["difference"] == pytest.approx(0.3, abs=0.05) and orders["t_holm"] < 0.001
    means = found.networks["mean"]
    assert networks["difference"] == pytest.approx(means[0] - means[1])
    assert networks["wilcoxon_p"] == pytest.approx(2 / 2**6)
    found.save(tmp_path / "out")
    written = {file.name for file in (tmp_path / "out").iterdir()}
    tables = {f"{name}.{kind}" for name in found.tables for kind in ("csv", "tex")}
    assert written == tables | {"curves.png", "curves.svg", "curves.pdf"}
    assert found.to_latex("tests").count("\\\\\n") == 4
    with pytest.raises(UnknownNameError, match=r"no table 'test' \(did you mean 'tests'\?\)"):
        found.to_latex("test")


def test_layers_agree_by_their_channels_and_by_rank():
    columns = {"x": [1, 2, 1, 2, 3, 9.0], "y": [2, 1, 1, 2, 3, 4.0]}
    joined = pd.DataFrame({"layer": ["a"] * 2 + ["b"] * 4, **columns})
    found, count = comparison._within_layers(joined, "x", "y")
    assert (found, count) == (pytest.approx((-2 + 4) / 6), 6)


def test_runs_without_curves_compare_by_their_networks(many):
    for one in many:
        (one / "results/sensitivity.csv").unlink()
    found = compare(many[:3])
    assert compare(many[:3] + many[6:9]).tests["runs"].tolist() == [3]
    assert found.curves.empty and found.tests.empty and found.networks["runs"].tolist() == [3]


def test_the_figure_shows_every_order_on_its_interval(many):
    found = compare(many)
    ax = found.plot()
    lines = {line.get_label(): line for line in ax.lines}
    orders = [
        f"{name}, {order}" for name in ("plain", "wide") for order in ("size, low first", "random")
    ]
    assert set(orders) <= set(lines)
    rows = found.curves.query("experiment == 'plain' and score == 'size'")
    assert list(lines["plain, size, low first"].get_ydata()) == pytest.approx(list(rows["mean"]))
    ends = [segment[:, 1] for part in ax.collections for segment in part.get_segments()]
    for low, high in zip(rows["low"], rows["high"], strict=True):
        assert any(end == pytest.approx([low, high]) for end in ends)
