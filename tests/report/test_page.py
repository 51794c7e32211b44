"""The page holds all it shows, escapes what it is given, and works in a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

from nodelens.report import render_markdown, render_page, report_data

VOID = {"meta", "img", "input", "br", "wbr", "link", "hr"}


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
        assert not (attributes.get("href") or "#").startswith("http")
        for name in ("src", "action", "data", "srcset", "poster"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#")), attributes
    text = html.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|//[a-z]|@import|url\(|fetch\(|XMLHttp", text)


def test_names_from_outside_are_text_and_never_markup(page):
    html = render_page(page)
    assert not any("onerror" in attributes for _, attributes in read(html).tags)
    assert html.count("<script") == 2 and html.count("</script") == 2
    assert html.count("<img") == 4 and html.count("onerror=") == html.count("img src=x onerror=")
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
    for heading in ("What happens without them<", "Which scores agree", "Where in the network"):
        assert heading in render_page(page)
        assert heading not in html
    read(html)


def test_channels_left_out_for_size_are_told(page):
    assert "1,234 more channels are in" in render_page(replace(page, omitted=1234))


def test_the_policy_lets_the_page_s_own_script_and_style_run_and_nothing_else(page):
    html = render_page(page)
    policy = next(
        str(given["content"])
        for tag, given in read(html).tags
        if given.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy
    for tag in ("script", "style"):
        text = re.search(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        assert text is not None
        digest = base64.b64encode(hashlib.sha256(text[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_the_questions_come_first_and_a_stage_s_answer_stands_among_them(page):
    text = " ".join("".join(read(render_page(page)).text).split())
    matter, redundant, without = (
        text.index(question)
        for question in (
            "Which channels matter?",
            "Which are redundant?",
            "What happens without them?",
        )
    )
    assert matter < text.index("fc1[1] has no double.") < redundant < without
    assert without < text.index("There are 20 groups.") < text.rindex("Every channel")


def test_a_question_without_an_answer_says_what_would_answer_it(page):
    silent = replace(page.findings, answers={}, numbers=[])
    text = "".join(read(render_page(replace(page, findings=silent, parts=[]))).text)
    for missing in (
        "taylor_saliency among its lenses",
        "average_redundancy",
        "sensitivity section",
    ):
        assert missing in text


def test_long_tables_say_what_they_leave_out(page):
    part = replace(
        page.parts[0], tables=[replace(page.parts[0].tables[0], omitted=7, file="a.csv")]
    )
    html = render_page(replace(page, parts=[part]))
    assert "7 more rows are in <code>a.csv</code>" in html


def test_markdown_and_json_say_the_same(page):
    markdown, data = render_markdown(page), report_data(page)
    assert json.loads(json.dumps(data)) == data
    assert [answer["question"] for answer in data["answers"]] == re.findall(
        r"^## (W.*\?)$", markdown, re.MULTILINE
    )
    for sentence in (page.findings.headline, page.findings.lede, "`fc1[1]` has no double."):
        assert sentence in markdown and sentence in str(data)
    assert "| group | members | made of |" in markdown
    assert "<" not in re.sub("`[^`]*`", "", markdown)
    assert data["sections"][0]["numbers"] == [{"value": "20", "label": "groups", "note": ""}]
