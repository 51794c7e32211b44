"""The page holds all it shows, escapes what it is given, and works in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from nodelens.report import render_page

VOID = {"meta", "img", "input", "br", "wbr", "link", "hr"}
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


class Reader(HTMLParser):
    """Collects tags and text, and fails where tags are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data):
        self.text.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


def test_the_page_is_well_formed_and_labelled(page):
    reader = read(render_page(page))
    tags = [tag for tag, _ in reader.tags]
    assert tags.count("h1") == 1 and tags.count("main") == 1
    assert all(attributes.get("alt") for tag, attributes in reader.tags if tag == "img")
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_nothing_is_fetched_from_anywhere(page):
    html = render_page(page)
    for _, attributes in read(html).tags:
        for name in ("src", "href", "action", "data", "srcset", "poster"):
            assert (attributes.get(name) or "data:").startswith("data:"), attributes
    assert not re.search(r"https?:|//[a-z]|@import|url\(|fetch\(|XMLHttp", html)


def test_names_from_outside_are_text_and_never_markup(page):
    html = render_page(page)
    assert not any("onerror" in attributes for _, attributes in read(html).tags)
    assert html.count("<script") == 2 and html.count("</script") == 2
    assert html.count("<img") == 4
    assert "&lt;b&gt;tiny&lt;/b&gt;" in html


def test_every_layer_and_every_score_is_on_the_page(page):
    reader = read(render_page(page))
    text = "".join(reader.text)
    for name in page.channels["layers"]:
        assert name in text
    for score in page.channels["scores"]:
        assert score["name"] in text


def test_the_table_of_channels_is_read_back_as_it_was(page):
    html = render_page(page)
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert data is not None
    assert json.loads(data[1]) == page.channels


def test_headline_numbers_and_sentences_are_on_the_page(page):
    text = "".join(read(render_page(page)).text)
    assert page.findings.headline.replace("`", "") + "." in text
    for number in page.findings.numbers:
        assert number.value in text and number.label in text


def test_parts_that_a_run_does_not_have_leave_no_heading(page):
    bare = replace(page, curves=[], heatmap=None, correlation=None, accuracies=None, files=[])
    html = render_page(bare)
    for heading in ("What happens without them", "Which scores agree", "Where in the network"):
        assert heading in render_page(page)
        assert heading not in html
    read(html)


def test_channels_left_out_for_size_are_told(page):
    assert "1,234 more channels are in" in render_page(replace(page, omitted=1234))


STEPS = """
const rows = () => [...document.querySelectorAll("#channels tbody tr")].map((r) => r.textContent);
const find = (text) => {
  const box = document.getElementById("query");
  box.value = text;
  box.dispatchEvent(new Event("input"));
  return rows();
};
const button = (name) => [...document.querySelectorAll("#channels thead button")]
  .find((b) => b.textContent.startsWith(name));
const seen = { first: rows() };
button("mag").click();
seen.ascending = rows();
seen.sort = document.querySelector("#channels [aria-sort]").getAttribute("aria-sort");
seen.words = find("fc1 1");
seen.compared = find("mag >= 3");
seen.other = find("average_redundancy < 0.15");
seen.none = find("nothing like it");
find("");
document.getElementById("layer").value = "1";
document.getElementById("layer").dispatchEvent(new Event("change"));
seen.layer = rows();
document.querySelector("[data-columns=all]").click();
seen.columns = document.querySelectorAll("#channels thead th").length;
const out = document.createElement("pre");
out.id = "seen";
out.textContent = JSON.stringify(seen);
document.body.append(out);
"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_the_table_sorts_and_filters_in_a_browser(page, tmp_path):
    html = render_page(page).replace("</body>", f"<script>{STEPS}</script></body>")
    (tmp_path / "page.html").write_text(html, encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", f"file://{tmp_path / 'page.html'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stderr[-2000:]
    reader = Reader()
    reader.feed(found[1])
    seen = json.loads("".join(reader.text) if reader.text else found[1])
    hostile = page.channels["layers"][1]
    assert seen["first"] == [f"{hostile}14", f"{hostile}03", "fc112", "fc101"]
    assert seen["ascending"] == seen["first"][::-1] and seen["sort"] == "ascending"
    assert seen["words"] == ["fc112"]
    assert seen["compared"] == [f"{hostile}03", f"{hostile}14"]
    assert seen["other"] == ["fc101"]
    assert seen["none"] == ["No channel matches."]
    assert seen["layer"] == [f"{hostile}03", f"{hostile}14"]
    assert seen["columns"] == 5
