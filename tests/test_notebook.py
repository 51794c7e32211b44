"""What displays itself in notebooks: whole tables, escaped, and short."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
import torch
from torch import nn

from nodelens import LensResult, ModelWrapper
from nodelens.analysis.causal.lesions import INTACT, Damage, lesion
from nodelens.analysis.clustering import MetricSpaceClustering
from nodelens.experiments import RunResults
from nodelens.notebook import MOST_ROWS, html_table

EVIL = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Tags, and the text of every cell row by row."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        self.text += data
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def test_cells_are_escaped_and_numbers_rounded():
    page = Page(html_table([EVIL, "x"], [[EVIL, 0.123456], [None, float("nan")]], EVIL))
    assert page.rows == [[EVIL, "x"], [EVIL, "0.1235"], ["", ""]]
    assert page.tags == {"table", "caption", "thead", "tbody", "tr", "th", "td"}


def test_long_tables_are_cut_and_say_so():
    scores = {f"fc{n}": {"size": torch.ones(2)} for n in range(MOST_ROWS + 3)}
    page = Page(LensResult(scores)._repr_html_())
    assert len(page.rows) == 1 + MOST_ROWS and page.text.endswith("and 3 more rows")


def test_a_model_shows_its_layers():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 2))
    page = Page(ModelWrapper(model)._repr_html_())
    assert page.rows[1:] == [["0", "Conv2d", "3", "8", ""], ["2", "Linear", "8", "2", ""]]
    assert "Sequential: 2 layers with channels, cpu" in page.text


def test_clusters_show_a_row_each():
    random = torch.Generator().manual_seed(0)
    given = [torch.rand(20, generator=random) for _ in range(3)]
    found = MetricSpaceClustering(n_clusters=3, shuffles=0).fit(*given, layer_name=EVIL)
    page = Page(found._repr_html_())
    assert EVIL in page.text and "script" not in page.tags
    assert [row[0] for row in page.rows[1:]] == list(found.cluster_types)
    sizes = [int(row[1]) for row in page.rows[1:]]
    assert sum(sizes) == 20 and sizes == found.labels.bincount().tolist()


def test_damage_shows_what_each_lesion_cost():
    one, many = lesion({"fc": [1]}), lesion({"fc": list(range(9))})
    losses = {INTACT: [2.0, 2.0], one: [3.0, 2.0], many: [6.0, 6.0]}
    arrays = {which: torch.tensor(v).double().numpy() for which, v in losses.items()}
    page = Page(Damage(arrays, None, torch.tensor([2, 2]).numpy())._repr_html_())
    assert page.rows[1:] == [
        ["fc: 1", "0.25", ""],
        ["fc: 0, 1, 2, 3, 4, 5, ... (9)", "2", ""],
    ]
    assert "loss of the intact model 1" in page.text


@pytest.mark.parametrize("finished", [True, False])
def test_a_run_shows_its_findings(finished, tmp_path):
    if finished:
        (tmp_path / "analysis").mkdir()
        found = f'{{"headline": "`a` {EVIL}", "sentences": ["b"]}}'
        (tmp_path / "analysis/findings.json").write_text(found)
    page = Page(RunResults(tmp_path)._repr_html_())
    expected = f"a {EVIL}b" if finished else f"{tmp_path.name}: not finished"
    assert page.text == expected and page.tags == {"p"}
