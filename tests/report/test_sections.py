"""A stage's section is checked when it is read, and everything it names is shown."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from nodelens.errors import OutputError
from nodelens.experiments.folder import RunFolder
from nodelens.experiments.sections import section_digests, shown_sections, with_sections
from nodelens.report import (
    Section,
    SectionFigure,
    SectionNumber,
    SectionTable,
    section_file,
    table_of,
)

CHANNELS = pd.DataFrame({"layer": ["a", "a", "b"], "channel": [0, 1, 0], "mag": [1.0, 2.0, 3.0]})


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    """A run whose stage `acme` left a section, and whose stage `old` is of an earlier run."""
    run = RunFolder(tmp_path)
    run.write_table("results/groups.csv", pd.DataFrame({"group": ["x"], "members": [0.123456]}))
    types = pd.DataFrame({"layer": ["b", "a"], "channel": [0, 1], "group": ["x", "y"]})
    run.write_table("results/types.csv", types)
    run.write_bytes("figures/depth.png", b"picture")
    section = Section(
        title="Groups",
        sentence="`a` has two.",
        answers="redundant",
        numbers=(SectionNumber(value="2", label="groups"),),
        tables=(SectionTable(file="results/groups.csv", title="All"),),
        figures=(SectionFigure(file="figures/depth", alt="depth"),),
        channels="results/types.csv",
    )
    for name in ("acme", "old"):
        run.write_json(section_file(name), section.to_plain())
    files = {section_file("acme"): "digest"}
    run.write_provenance({"stages": {"acme": {"status": "finished", "files": files}}})
    return run


def test_a_section_is_shown_with_its_tables_and_figures(folder):
    (part,) = shown_sections(folder)
    assert (part.anchor, part.title, part.answers) == ("part-acme", "Groups", "redundant")
    assert part.tables[0].rows == [["x", "0.1235"]] and part.tables[0].title == "All"
    assert part.figures[0].source == "data:image/png;base64,cGljdHVyZQ=="
    assert part.numbers == [("2", "groups", "")]


def test_its_columns_join_the_table_of_channels(folder):
    joined = with_sections(CHANNELS, folder)
    assert list(joined.columns) == ["layer", "channel", "mag", "group"]
    assert joined["group"].fillna("").tolist() == ["", "y", "x"]
    assert joined["mag"].tolist() == [1, 2, 3]


def test_a_changed_table_or_figure_makes_the_report_anew(folder):
    before = section_digests(folder)
    assert set(before) == {
        section_file("acme"),
        "results/groups.csv",
        "results/types.csv",
        "figures/depth.png",
    }
    folder.write_bytes("figures/depth.png", b"another")
    assert section_digests(folder) != before


def test_what_a_section_names_and_is_not_there_is_told(folder):
    folder.remove(["figures/depth.png"])
    with pytest.raises(OutputError, match=r"names the figure 'figures/depth', but the run has nei"):
        shown_sections(folder)
    folder.write_table("results/types.csv", pd.DataFrame({"layer": ["a"], "group": ["x"]}))
    with pytest.raises(OutputError, match=r"'Groups': expected columns 'layer' and 'channel', eac"):
        with_sections(CHANNELS, folder)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"title": "a", "sentense": "b"}, r"unknown key 'sentense' \(did you mean 'sentence'\?\)"),
        ({"title": ""}, "title: String should have at least 1 character, got ''"),
        ({"title": "a", "answers": "why"}, "answers: .*'matter', 'redundant' or 'without'"),
        (
            {"title": "a", "tables": [{"fil": "x", "file": "y"}]},
            r".* key 'tables.0.fil' \(did you m",
        ),
        ([1], r"expected an object, got \[1\]"),
    ],
)
def test_a_file_that_is_no_section_is_told(data, said):
    with pytest.raises(OutputError, match=f"'f.json' is no section of a report: {said}"):
        Section.from_plain(data, "f.json")


def test_a_section_survives_being_written_down(folder):
    data = folder.read_json(section_file("acme"))
    assert Section.from_plain(data, "f.json").to_plain() == data == json.loads(json.dumps(data))


def test_a_long_table_is_cut_and_says_so():
    table = table_of(pd.DataFrame({"n": range(2_003)}), file="results/n.csv")
    assert (len(table.rows), table.omitted, table.numeric) == (2_000, 3, [True])
