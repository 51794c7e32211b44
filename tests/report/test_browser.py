"""The page works in a browser: under its own policy, without a word on the console."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from nodelens.report import channel_data, render_page

pytestmark = pytest.mark.slow

SEEN = """
const told = (seen) => {
  const out = document.createElement("pre");
  out.id = "seen";
  out.textContent = JSON.stringify(seen);
  document.body.append(out);
};
const all = (selector) => [...document.querySelectorAll(selector)];
const rows = () => all("#channels tbody tr").map((r) => r.textContent);
const set = (id, value, kind) => {
  const box = document.getElementById(id);
  box.value = value;
  box.dispatchEvent(new Event(kind));
};
const find = (text) => { set("query", text, "input"); return rows(); };
const heading = (name) => all("#channels thead button").find((b) => b.textContent.startsWith(name));
const ranked = () => all("#ranked button").map((b) => b.textContent);
const bars = () => all("#histogram title").map((t) => t.textContent);
"""
STEPS = """
const seen = { first: rows(), ranked: ranked(), bars: bars().length };
heading("mag").click();
seen.ascending = rows();
seen.sort = document.querySelector("#channels [aria-sort]").getAttribute("aria-sort");
seen.lowest = ranked();
seen.words = find("fc1 1");
seen.label = find("core");
seen.paper = document.getElementById("paper").textContent;
seen.compared = find("mag >= 3");
seen.other = find("average_redundancy < 0.15");
seen.none = find("nothing like it");
find("");
set("layer", "1", "change");
seen.layer = rows();
set("layer", "", "change");
set("score", "0", "change");
seen.score = ranked();
seen.address = location.hash;
document.querySelector("[data-columns=all]").click();
seen.columns = all("#channels thead th").length;
told(seen);
"""
CARD = """
const card = document.getElementById("card");
const entry = document.querySelector("#ranked button");
const seen = { before: card.hidden };
entry.dispatchEvent(new PointerEvent("pointerover", { bubbles: true, pointerType: "mouse" }));
seen.hovered = card.textContent;
seen.marked = all("#mark line").length;
entry.dispatchEvent(new PointerEvent("pointerout", { bubbles: true }));
seen.left = card.hidden;
entry.focus();
seen.focused = !card.hidden;
entry.click();
seen.address = location.hash;
document.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
seen.closed = card.hidden && !location.hash.includes("channel");
all(".answers code button").find((b) => b.textContent === "fc1[1]").click();
seen.linked = card.textContent;
document.querySelector("button.zoom").click();
const dialog = document.getElementById("enlarged");
seen.zoomed = dialog.open && dialog.querySelectorAll("img").length;
dialog.click();
seen.shut = !dialog.open;
told(seen);
"""
TABLE = """
const table = all("table.sortable").find((t) => t.textContent.includes("members"));
const names = () => [...table.tBodies[0].rows].filter((r) => !r.hidden);
const visible = () => names().map((r) => r.cells[0].textContent);
const [group, members] = table.tHead.querySelectorAll("button");
const paper = table.parentElement.nextElementSibling.nextElementSibling;
const printed = [...document.styleSheets[0].cssRules].find((r) => r.media?.mediaText === "print");
const rule = [...printed.cssRules].find((r) => r.selectorText === ".paper");
const seen = { first: visible(), paper: [paper.textContent] };
seen.display = [getComputedStyle(paper).display, rule.style.display];
members.click();
seen.down = visible();
members.click();
seen.up = visible();
group.click();
seen.named = visible().slice(0, 3);
const box = table.parentElement.previousElementSibling.querySelector("input");
box.value = "g1";
box.dispatchEvent(new Event("input"));
seen.filtered = visible();
seen.paper.push(paper.textContent);
box.value = "";
box.dispatchEvent(new Event("input"));
table.parentElement.nextElementSibling.click();
seen.all = visible().length;
seen.paper.push(paper.textContent);
told(seen);
"""


def opened(browse, html, steps, **options):
    found, console = browse(html, SEEN + steps, **options)
    assert console == []
    return json.loads(found)


def test_channels_are_sorted_filtered_and_ranked(page, browse):
    seen = opened(browse, render_page(page), STEPS)
    hostile = page.channels["layers"][1]
    last, third = f"{hostile}14core", f"{hostile}03{hostile}"
    assert seen["first"] == [last, third, "fc112", "fc101core"]
    assert seen["ranked"][0] == f"{hostile}[1]4" and len(seen["ranked"]) == 4
    assert seen["lowest"] == seen["ranked"][::-1] and seen["bars"] >= 8
    assert seen["ascending"] == seen["first"][::-1] and seen["sort"] == "ascending"
    assert seen["words"] == ["fc112"] and seen["label"] == ["fc101core", last]
    assert seen["paper"] == "2 of 4 channels; all are in results/channels.csv"
    assert seen["compared"] == [third, last] and seen["other"] == ["fc101core"]
    assert seen["none"] == ["No channel matches."]
    assert seen["layer"] == [third, last]
    assert seen["score"][0] == "fc1[1]0.4" and seen["address"] == "#score=average_redundancy"
    assert seen["columns"] == 6


def test_a_channel_shows_all_its_scores_and_a_figure_grows(page, browse):
    seen = opened(browse, render_page(page), CARD)
    assert seen["before"] and seen["left"] and seen["focused"] and seen["closed"]
    for value in ("average_redundancy0.3", "activation_sparsity1", "mag4", "kindcore"):
        assert value in seen["hovered"]
    assert seen["marked"] == 1 and seen["linked"].startswith("fc1[1]")
    assert "channel=" in seen["address"]
    assert seen["zoomed"] == 1 and seen["shut"]


def test_an_address_leads_to_what_was_looked_at(page, browse):
    address = "#layer=fc1&score=average_redundancy&order=low&channel=fc1%5B0%5D"
    steps = 'told({ rows: rows(), ranked: ranked(), card: all("#card h3")[0].textContent });'
    seen = opened(browse, render_page(page), steps, address=address)
    assert seen["ranked"] == ["fc1[0]0.1", "fc1[1]0.4"]
    assert [row[:4] for row in seen["rows"]] == ["fc10", "fc11"] and seen["card"] == "fc1[0]"


def test_a_stage_s_table_is_sorted_by_number_and_filtered(page, browse):
    seen = opened(browse, render_page(page), TABLE)
    assert seen["first"] == [f"g{n}" for n in range(12)]
    assert seen["down"][:3] == ["g17", "g14", "g11"] and seen["up"][:3] == ["g0", "g3", "g6"]
    assert seen["named"] == ["g0", "g1", "g2"]
    assert seen["filtered"] == ["g1", *(f"g{n}" for n in range(10, 20))]
    assert seen["all"] == 21
    # What is left out is said on paper, where there is no button for it.
    assert seen["paper"] == ["12 of 21 rows", "11 of 21 rows", ""]
    assert seen["display"] == ["none", "block"]


@pytest.mark.parametrize("size", ["1280,900", "500,800"])
def test_the_page_is_drawn_and_nothing_sticks_out(page, browse, tmp_path, size):
    from PIL import Image

    told = "told(document.documentElement.scrollWidth - document.documentElement.clientWidth);"
    assert opened(browse, render_page(page), told, size=size) <= 0
    browse(render_page(page), picture="page.png", size=size)
    colours = Image.open(tmp_path / "page.png").convert("RGB").getcolors(1 << 24)
    assert len(colours) > 50


def test_a_large_model_opens_fast_and_stays_small(page, browse):
    random = np.random.default_rng(0)
    table = pd.DataFrame(
        random.lognormal(size=(30 * 1536, 20)), columns=[f"score_{n}" for n in range(20)]
    )
    table.insert(0, "layer", np.repeat([f"layers.{n}.mlp.down_proj" for n in range(30)], 1536))
    table.insert(1, "channel", np.tile(np.arange(1536), 30))
    html = render_page(replace(page, channels=channel_data(table, {}, [])))
    assert len(html.encode()) < 15e6
    steps = """
const before = performance.now();
set("score", "7", "change");
told({ rows: rows().length, opened: before, chosen: performance.now() - before });
"""
    started = time.perf_counter()
    seen = opened(browse, html, steps)
    print(f"{len(html) / 1e6:.1f} MB, {seen}, {time.perf_counter() - started:.1f} s in all")
    assert seen["rows"] == 20 and seen["opened"] < 15_000 and seen["chosen"] < 5_000
