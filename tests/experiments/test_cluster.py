"""A cluster analysis sorts channels into types, says whether there are any, and tests them."""

from __future__ import annotations

import json
import re
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from nodelens.analysis.causal import MatchedCascade, damage
from nodelens.analysis.causal.lesions import INTACT, Damage
from nodelens.configs.config_loader import dump_config, parse_config
from nodelens.errors import ConfigError, InvalidValueError, OutputError, UnknownNameError
from nodelens.experiments import (
    ClusterAnalysisExperiment,
    Drawing,
    Run,
    RunResults,
    Stage,
    analyse,
    cluster_section,
    experiment_for,
    leave_section,
    rebuild_report,
    sections,
)
from nodelens.experiments.folder import RunFolder
from nodelens.experiments.splits import load_splits
from nodelens.experiments.stages import clusters
from nodelens.experiments.stages import figures as figures_stage
from nodelens.experiments.stages.causal import CausalStage
from nodelens.experiments.stages.clusters import ClusteringStage, adjusted
from nodelens.experiments.stages.halos import HaloStage
from nodelens.experiments.stages.measure import write_tables
from nodelens.figures import plot_depth
from nodelens.files import load_tensors
from nodelens.report import SectionTable
from nodelens.result import LensResult

pytestmark = pytest.mark.xdist_group("clusters")

TINY = """\
experiment: {name: tiny, type: cluster_analysis}
model: {name: mlp, options: {hidden: [14, 12]}}
dataset: {name: digits}
training: {epochs: 1}
lenses: [rayleigh_quotient, average_redundancy, gaussian_pid_synergy_mmi, weight_magnitude]
clustering: {importance: weight_magnitude, shuffles: 19, bootstraps: 2, ablations: false}
halo: {permutations: 49, percentile: 80}
causal:
  {counts: [1, 2], draws: 2, halo_draws: 3, scores: [weight_magnitude], per_layer: 3, rows: 60}
output: {directory: PUT}
"""
FAMILY = ["clustering", "halos", "causal"]
STAGES = ["data", "network", "measure", *FAMILY, "analysis", "figures", "report"]


def tiny(folder: Path, *overrides):
    return parse_config(TINY, [("output.directory", str(folder)), *overrides], source="tiny.yaml")


def run(config, **options) -> RunResults:
    return ClusterAnalysisExperiment(config).run(progress=False, **options)


def empty(run_, file, draw) -> int:
    """Stand in for drawing, which takes seconds; the slow tests draw."""
    run_.folder.write_bytes(f"{file}.svg", b"<svg/>")
    return 100


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_drawn():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures_stage, "_save", empty)
        patch.setattr(sections, "save_figure", empty)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    return run(tiny(tmp_path_factory.mktemp("cluster") / "run")).directory


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.fixture
def ran(monkeypatch) -> list[str]:
    """The names of the stages of the family that do work while the test lasts."""
    names: list[str] = []
    for stage in (ClusteringStage, HaloStage, CausalStage):

        def watched(self, run, original=stage.run):
            names.append(self.name)
            return original(self, run)

        monkeypatch.setattr(stage, "run", watched)
    return names


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a run but what tells the time."""
    reports = ("report.html", "report.md", "report.json")
    apart = ("provenance.json", "logs/run.log", "experiment_config.yaml", *reports)
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name not in apart}


def test_every_stage_leaves_its_tables(finished):
    record = json.loads((finished / "provenance.json").read_text())
    assert list(record["stages"]) == STAGES == list(record["protocol"])
    results = RunResults(finished)
    clusters = results.table("results/clusters.csv")
    assert len(clusters) == 26 and set(clusters["layer"]) == {"fc1", "fc2"}
    layers = results.table("results/cluster_layers.csv").set_index("layer")
    counts = clusters.groupby(["layer", "type"]).size()
    assert all(layers.loc[layer, kind] == n for (layer, kind), n in counts.items())
    flow = results.table("results/flow.csv")
    assert np.allclose(flow.groupby("source_type")["share"].sum(), 1)
    assert not list((finished / "checkpoints").glob("causal*"))


def test_influence_is_weight_times_the_spread_of_what_arrives(finished):
    weights = load_tensors(finished / "checkpoints/trained.safetensors")[0]
    splits = experiment_splits(finished)
    x = splits.calibration.tensors[0].flatten(1).double()
    hidden = torch.relu(x @ weights["fc1.weight"].double().T + weights["fc1.bias"])
    expected = weights["fc2.weight"].abs().double() * hidden.std(0)
    found = load_tensors(finished / "results/influence.safetensors")[0]
    assert torch.allclose(found["fc1 -> fc2"], expected, rtol=1e-4, atol=1e-9)


def experiment_splits(folder: Path):
    return load_splits(tiny(folder))


def test_a_cost_of_the_cascade_is_that_of_the_channels_taken_out_by_hand(finished):
    """One background channel gone: the loss of the network with that row of weights at zero."""
    single = RunResults(finished).table("results/ablation_validation.csv").iloc[0]
    weights = load_tensors(finished / "checkpoints/trained.safetensors")[0]
    x, y = (part[:60] for part in experiment_splits(finished).validation.tensors)

    def loss(silent: int | None) -> float:
        out = x.flatten(1)
        for number in (1, 2, 3):
            out = out @ weights[f"fc{number}.weight"].T + weights[f"fc{number}.bias"]
            if single["layer"] == f"fc{number}" and silent is not None:
                out[:, silent] = 0
            out = torch.relu(out) if number < 3 else out
        return float(torch.nn.functional.cross_entropy(out, y))

    expected = loss(int(single["channel"])) - loss(None)
    channels = RunResults(finished).channels.set_index(["layer", "channel"])["weight_magnitude"]
    assert single["value"] == pytest.approx(channels[single["layer"], single["channel"]])
    assert single["loss_change"] == pytest.approx(expected, abs=1e-5)


def test_the_report_tells_of_clusters_halos_and_costs_and_that_there_are_none(finished):
    page = (finished / "report.html").read_text()
    for title in ("Kinds of channels", "Who listens to them", "What they are worth"):
        assert f">{title}</h2>" in page
    for alt in ("The halo of the ", "Influence from each type of ", "Rise in the loss above"):
        assert f'alt="{alt}' in page
    layers = RunResults(finished).table("results/cluster_layers.csv")
    none = list(layers.loc[layers["verdict"] == "no structure", "layer"])
    assert ("Types are none there" in page) == bool(none)
    names = (
        *("type_shares", "clusters_fc1", "clusters_3d_fc2", "types_redundancy", "flow_fc1_fc2"),
        *("halo_fc1_fc2", "halo_synergy", "cascade", "halo_ablation", "damage_weight_magnitude"),
    )
    assert all((finished / f"figures/{name}.svg").exists() for name in names)
    told = json.loads((finished / "report.json").read_text())["sections"]
    assert [len(part["tables"]) for part in told] == [2, 2, 1]
    findings = RunResults(finished).findings
    assert "noise" in findings["headline"]


def test_resume_keeps_all_and_a_changed_section_redoes_what_hangs_on_it(copy, ran):
    run(tiny(copy), resume=True)
    assert ran == []
    run(tiny(copy, "causal.draws=1"), resume=True)
    assert ran == ["causal"]


def test_one_stage_alone(copy, ran):
    before = contents(copy)
    run(tiny(copy), only="halos")
    assert ran == ["halos"]
    assert contents(copy) == before
    with pytest.raises(InvalidValueError, match="stage 'causal' needs 'halos', which has not"):
        run(tiny(copy, "halo.percentile=70"), only="causal")
    with pytest.raises(UnknownNameError, match=r"no stage 'halo' \(did you mean 'halos'\?\)"):
        run(tiny(copy), only="halo")


def section_files(folder: Path) -> dict[str, bytes]:
    """The sections of the family and their figures."""
    stages = json.loads((folder / "provenance.json").read_text())["stages"]
    return {n: (folder / n).read_bytes() for name in FAMILY for n in stages[name]["shown"]}


@pytest.mark.parametrize("again", [rebuild_report, lambda folder: run(tiny(folder), resume=True)])
def test_figures_that_are_gone_are_drawn_again_and_nothing_is_computed(copy, ran, again):
    before = section_files(copy)
    assert len([name for name in before if name.endswith(".svg")]) > 10
    for name in before:
        (copy / name).unlink()
    again(copy)
    assert section_files(copy) == before and ran == []


@pytest.mark.slow
def test_an_analysis_draws_what_is_gone_from_the_run(finished, copy, tmp_path):
    (copy / "figures/cascade.svg").unlink()
    analyse(copy, tmp_path / "extra")
    assert section_files(tmp_path / "extra") == section_files(finished)


def test_other_formats_are_drawn_without_computing(copy, ran, monkeypatch):
    drawn = []

    def kinds(run_, file, draw) -> int:
        drawn.extend(f"{file}.{kind}" for kind in run_.config.figures.formats)
        return empty(run_, file, draw)

    monkeypatch.setattr(sections, "save_figure", kinds)
    run(tiny(copy, "figures.formats=[pdf]"), resume=True)
    assert {"figures/type_shares.pdf", "figures/flow_fc1_fc2.pdf", "figures/cascade.pdf"} <= {
        *drawn
    }
    assert ran == []


def test_an_interrupted_check_goes_on_behind_what_was_measured(finished, copy, monkeypatch, ran):
    (copy / "results/cascade.csv").unlink()
    cost, measured = damage._cost, []

    def measuring(wrapper, parts, which, options, most):
        if len(measured) == most:
            raise KeyboardInterrupt
        measured.append(which)
        return cost(wrapper, parts, which, options)

    monkeypatch.setattr(damage, "_cost", partial(measuring, most=9))
    with pytest.raises(KeyboardInterrupt):
        run(tiny(copy), resume=True)
    assert len(list((copy / "checkpoints").glob("causal-*.jsonl"))) == 1
    monkeypatch.setattr(damage, "_cost", partial(measuring, most=-1))
    run(tiny(copy), resume=True)
    assert len(measured) > 20 and INTACT in measured[9:]
    assert not {*measured[:9]} & {*measured[9:]} - {INTACT}
    assert ran == ["causal", "causal"]
    assert contents(copy) == contents(finished)


def test_what_a_kill_behind_the_record_left_is_removed(copy, ran):
    left = copy / "checkpoints/causal-0123456789abcdef.jsonl"
    left.write_text("")
    run(tiny(copy), resume=True)
    assert ran == [] and not left.exists()


def test_the_tables_serve_an_analysis_elsewhere(finished, tmp_path):
    page = analyse(finished, tmp_path / "elsewhere").report.read_text()
    assert ">What they are worth</h2>" in page


def test_a_run_killed_before_its_first_record_is_no_stranger(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    left = folder.root / ".provenance.json.x1y2z3_4"
    for path in (left, folder.root / "logs/run.log"):
        path.write_text("")
    folder.prepare()
    assert not left.exists()
    (folder.root / "results/mine.csv").write_text("")
    with pytest.raises(OutputError, match="is not a run of nodelens"):
        folder.prepare()


# Planted structure


def planted(folder: Path, seed: int = 0) -> None:
    """Put scores into a finished run that fall into four kinds in `fc1`, and into none in `fc2`."""
    random = np.random.default_rng(seed)
    centres = np.array([(3, 0, 0), (0, 2, 0), (0, 0, 2), (-3, 0, 0)])
    kinds = np.arange(14) % 4
    scores = LensResult.load(folder / "results/scores")
    for layer, points in {
        "fc1": centres[kinds] + 0.1 * random.standard_normal((14, 3)),
        "fc2": random.standard_normal((12, 3)),
    }.items():
        columns = torch.from_numpy(points).T
        names = ("rayleigh_quotient", "average_redundancy", "gaussian_pid_synergy_mmi")
        for name, values in zip(names, (columns[0].exp(), *columns[1:]), strict=True):
            dict.__getitem__(scores, layer)[name] = values.contiguous()
    scores.save(folder / "results/scores")
    write_tables(RunFolder(folder), scores)


def test_planted_kinds_are_recovered_and_noise_is_called_none(copy):
    planted(copy)
    stage, config = ClusteringStage(), tiny(copy, "clustering.shuffles=49")
    for step in (stage.run, stage.show):
        step(Run(config, RunFolder(copy)))
    results = RunResults(copy)
    clusters = results.table("results/clusters.csv")
    expected = ["critical", "redundant", "synergistic", "background"]
    mine = clusters[clusters["layer"] == "fc1"]
    assert list(mine["type"]) == [expected[i % 4] for i in range(14)]
    layers = results.table("results/cluster_layers.csv").set_index("layer")
    assert list(layers["verdict"]) == ["structure", "no structure"]
    # Two layers: the smaller p-value counts twice, up to the larger.
    low, high = sorted(layers["p_value"])
    assert sorted(layers["p_adjusted"]) == pytest.approx([min(2 * low, high), high])
    told = json.loads((copy / "analysis/sections/clustering.json").read_text())
    assert told["sentence"] == "Channels fall into kinds, tighter than noise gives, in `fc1` alone."
    assert any(s.startswith("No structure: `fc2`") for s in told["findings"])
    assert not any("importance 0" in s for s in told["findings"])
    layers["worthless"] = 5
    said = cluster_section._worthless(layers.reset_index())
    assert said.startswith("Channels of importance 0: 5 of 14 in `fc1`. Clusters may be there")


def test_options_of_the_section_reach_what_they_are_of(tmp_path, monkeypatch):
    given = tiny(
        tmp_path,
        ("clustering.n_clusters", 3),
        ("clustering.seed", 9),
        ("clustering.type_mapping", "global"),
    ).clustering
    made = clusters._clusterer(given)
    options = (made.n_clusters, made.seed, made.type_mapping, made.shuffles)
    assert options == (3, 9, "global", 19)
    told = {}
    monkeypatch.setattr(clusters, "stability", lambda found, **options: told.update(options) or 1.0)
    columns = torch.rand(3, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scores = dict(zip(("quotient", "redundancy", "synergy"), 1 + columns, strict=True))
    found = clusters._clusters(given, "fc", scores)
    row = clusters._layer(given, found)
    assert told == {"samples": 2, "seed": 9}
    assert (row["within"], row["within_noise"]) == (
        found.structure.within,
        found.structure.null_mean,
    )
    asked = []
    monkeypatch.setattr(clusters, "ablations", lambda *given: asked.append(given[1:]) or {})
    run = SimpleNamespace(config=SimpleNamespace(clustering=given), advance=lambda *_: None)
    clusters._ablations(run, {"fc": scores})
    assert asked == [(*scores.values(), "fc")]


def test_the_worth_of_a_type_is_the_mean_rank_of_its_channels():
    found = SimpleNamespace(layer_name="fc", channel_types=["a", "b", "b", "a"])
    metrics = {"fc": {"importance": torch.tensor([4.0, 1.0, 2.0, 3.0])}}
    table = clusters._worth("size", metrics, [found])
    assert table[["type", "mean_rank"]].values.tolist() == [["a", 0.875], ["b", 0.375]]


def test_matched_controls_take_as_many_of_every_layer():
    types = {"a": {"x": [0, 1, 2], "y": [10]}, "b": {"x": [3, 4, 5, 6], "y": [11, 12, 13]}}
    check = MatchedCascade(types, counts=[1, 3], draws=20)
    for _, n, mine, control in check.steps:
        sizes = [{layer: len(chosen) for layer, chosen in which} for which in (mine, control)]
        assert sizes[0] == sizes[1] and sum(sizes[0].values()) == n
        assert all((c >= 10) == (layer == "y") for layer, chosen in control for c in chosen)


def test_the_excess_of_a_cascade_is_free_of_what_layers_cost():
    """Channels of `deep` cost 1 each, those of `shallow` nothing: no type is worth more."""
    types = {"a": {"deep": list(range(6)), "shallow": [0]}, "b": {"shallow": list(range(1, 9))}}
    check = MatchedCascade(types, counts=[2], draws=30)
    rows = np.array([1.0])
    losses = {INTACT: np.array([0.0])}
    for which in check.lesions:
        losses[which] = np.array([float(sum(len(c) for name, c in which if name == "deep"))])
    found = check.conclude(Damage(losses, None, rows))
    assert found["loss_change.a.2"].value > 1.5 and found["loss_change.b.2"].value == 0
    assert found["excess.a"].value == found["excess.b"].value == 0


def test_a_type_that_costs_more_has_an_excess():
    types = {"a": {"x": [0, 1, 2, 3]}, "b": {"x": list(range(4, 20))}}
    check = MatchedCascade(types, counts=[1, 2], draws=20)
    losses = {INTACT: np.array([0.0])}
    for which in check.lesions:
        losses[which] = np.array([float(sum(c < 4 for _, chosen in which for c in chosen))])
    found = check.conclude(Damage(losses, None, np.array([1.0])))
    assert found["excess.a"].low > 0 and found["excess.b"].high < 0.01


# Configuration


def test_aliases_and_defaults(tmp_path):
    for alias in ("vision_cluster_analysis", "metric_cluster_analysis", "cluster_analysis"):
        config = tiny(tmp_path, ("experiment.type", alias), ("clustering", None))
        assert config.experiment_type == "cluster_analysis"
        assert config.clustering is not None and config.clustering.n_clusters == 4
        assert isinstance(experiment_for(config), ClusterAnalysisExperiment)


def test_the_sections_of_the_template_are_the_defaults(tmp_path, pytestconfig):
    text = (pytestconfig.rootpath / "configs/examples/template.yaml").read_text()
    others = text.partition("# Sections of other families: take the signs in front away.\n")[2]
    told = yaml.safe_load(re.sub("^# ?", "", others, flags=re.MULTILINE))
    config = tiny(tmp_path, ("clustering", {}), ("halo", {}), ("causal", {}))
    for name in ("clustering", "halo", "causal"):
        assert getattr(config, name).model_dump(mode="json") == told[name]


def test_stages_without_a_section_are_left_out(tmp_path):
    config = tiny(tmp_path, ("halo", None), ("causal", None))
    names = [stage.name for stage in ClusterAnalysisExperiment(config).stages()]
    assert names == [name for name in STAGES if name not in ("halos", "causal")]


def test_a_written_configuration_is_the_same(tmp_path):
    config = tiny(tmp_path)
    assert parse_config(dump_config(config)) == config


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("clustering.n_cluster=3", r"clustering\.n_cluster: unknown key .*'n_clusters'"),
        ("clustering.synergy=gaussian_pid", r"clustering\.synergy: 'gaussian_pid' is not a score"),
        ("clustering.type_mapping=gredy", r"'gredy', expected .*did you mean 'greedy'"),
        (("clustering.importance", None), None),
        ("clustering={mode: quantile}", r"clustering: mode 'quantile' needs importance"),
        ("halo.percentil=3", r"halo\.percentil: unknown key .*'percentile'"),
        ("halo.percentile=130.0", r"halo\.percentile: 130\.0, expected less than or equal to 100"),
        ("causal.scores=[weight_magnitud]", r"'weight_magnitud' is not .*'weight_magnitude'"),
        ("causal.rows=4000", r"causal\.rows: 4000 rows, but the validation part has 270"),
        ("causal.halo_type=critica", r"'critica', expected .*did you mean 'critical'"),
        ("experiment.type=general_alignment", r"clustering: not read by 'general_alignment'"),
    ],
)
def test_a_mistake_in_the_sections_is_told(tmp_path, override, said):
    def checked():
        experiment = experiment_for(tiny(tmp_path / "run", override))
        for stage in experiment.stages():
            stage.check(Run(experiment.config, RunFolder(tmp_path / "run")))

    if said is None:
        checked()
        return
    with pytest.raises(ConfigError, match=said):
        checked()
    assert not (tmp_path / "run").exists()


def test_p_values_are_adjusted_for_their_number():
    assert adjusted(pd.Series([0.01, 0.02, 0.03])).tolist() == pytest.approx([0.03] * 3)
    assert adjusted(pd.Series([None, None], dtype=float)).isna().all()


# A stage of one's own


LINES = {"largest": {"fc1": 1.0, "fc2": 2.0}}


class Largest(Stage):
    """Writes the largest weight of every layer."""

    name = "largest"
    needs = ("network",)

    def settings(self, run):
        return {}

    def protocol(self, config):
        return "The largest weight of every layer, by size."

    def run(self, run):
        sizes = {
            n: float(p.detach().abs().max())
            for n, p in run.network.named_parameters()
            if p.ndim > 1
        }
        run.folder.write_table("results/largest.csv", pd.DataFrame([sizes]))
        leave_section(
            run,
            self.name,
            [Drawing("largest", "The largest weights.", lambda: plot_depth(LINES))],
            title="Large weights",
            sentence="Weights are large.",
            findings=("So <large>.",),
            tables=(SectionTable(file="results/largest.csv", title="All of them"),),
        )
        return "the largest weights"


class Own(ClusterAnalysisExperiment):
    def stages(self):
        first = [stage for stage in super().stages() if stage.name not in ("halos", "causal")]
        return [*first[:4], Largest(), *first[4:]]


def test_a_stage_of_ones_own_is_run_told_of_and_kept(copy):
    config = tiny(copy, ("halo", None), ("causal", None))
    Own(config).run(progress=False, resume=True)
    page = (copy / "report.html").read_text()
    assert ">Large weights</h2>" in page and "So &lt;large&gt;." in page
    assert "Weights are large." in RunResults(copy).findings["sentences"]
    assert (copy / "figures/largest.svg").exists() and "All of them" in page
    # Its section is in the folder: the stage itself is not needed to report on it.
    for made in (rebuild_report(copy), analyse(copy, copy.parent / "elsewhere")):
        assert ">Large weights</h2>" in made.report.read_text()
    before = (copy / "results/largest.csv").stat().st_mtime_ns
    Own(config).run(progress=False, resume=True)
    assert (copy / "results/largest.csv").stat().st_mtime_ns == before
    Own(config).run(progress=False, only="largest")
    assert (copy / "results/largest.csv").stat().st_mtime_ns > before
