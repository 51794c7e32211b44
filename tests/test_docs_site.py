"""Every page has its place in the site, and the built site needs nothing from elsewhere."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
LOADED = re.compile(r'<(?:script|img|iframe)[^>]* src="?(?:https?:)?//|<link[^>]* href="?https?://')
UNSET = re.compile(r"\\\(|\\\[|class=\"arithmatex\"")


def files_of(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from files_of(entry)


def test_every_page_has_a_place_in_the_navigation() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    placed = list(files_of(settings["nav"]))
    lenses = {page for page in DOCS.glob("lenses/*.md") if page.name != "index.md"}
    pages = {p.relative_to(DOCS).as_posix() for p in set(DOCS.rglob("*.md")) - lenses}
    assert sorted(pages - set(placed)) == [], "add them to nav in mkdocs.yml"
    homes = [
        ROOT / f.removeprefix("source/") if f.startswith("source/") else DOCS / f for f in placed
    ]
    assert [file for file in homes if not file.exists()] == []


def test_the_home_page_lists_every_page() -> None:
    home = (DOCS / "index.md").read_text("utf-8")
    pages = [page.name for page in DOCS.glob("*.md") if page.name != "index.md"]
    assert [name for name in pages if f"({name})" not in home] == []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("mkdocs", "material", "mkdocstrings", "math_core"):
        pytest.importorskip(package, reason="make docs installs it")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    texts = {page: page.read_text("utf-8") for page in site.rglob("*.html")}
    assert len(texts) > 100
    assert [page.name for page, text in texts.items() if LOADED.search(text)] == []
    styles = [style.read_text("utf-8") for style in site.rglob("*.css")]
    assert styles and not any(re.search(r"url\(.?https?:", style) for style in styles)


@pytest.mark.slow
def test_every_formula_is_typeset(site: Path) -> None:
    pages = [page for page in DOCS.rglob("*.md") if page.read_text("utf-8").count("\n$$\n") >= 2]
    assert len(pages) > 50
    built = [site / page.relative_to(DOCS).with_suffix(".html") for page in pages]
    bodies = [
        re.sub(r"<(pre|code|script).*?</\1>", "", page.read_text(), flags=re.S) for page in built
    ]
    assert all('display="block"' in body for body in bodies)
    assert not any(UNSET.search(body) for body in bodies)


@pytest.mark.slow
def test_links_out_of_the_documentation_lead_to_pages_of_the_site(site: Path) -> None:
    page = site / "lenses" / "pid_synergy.html"
    link = re.search(r'href="([^"]*oracles/pairs\.py\.html)"', page.read_text("utf-8"))
    assert link is not None
    assert "def atoms" in re.sub(
        r"<[^>]+>", "", (page.parent / link[1]).resolve().read_text("utf-8")
    )


class Anchors(HTMLParser):
    """What a built page can be linked at, and where it leads."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.ids |= {told[key] or "" for key in ("id", "name") if key in told}
        self.links |= {told[key] or "" for key in ("href", "src") if key in told}


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Anchors]:
    # 404.html is for a server: its links begin at that server's root.
    return {page: Anchors(page) for page in site.rglob("*.html") if page.name != "404.html"}


def dead(page: Path, pages: dict[Path, Anchors]) -> list[str]:
    """Links of a page to no file, to a folder, which a browser would list, or to no anchor."""
    found = []
    for link in sorted(pages[page].links):
        parts = urlsplit(link)
        target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        if parts.scheme or parts.netloc:
            continue
        known = pages[target].ids if target in pages else {unquote(parts.fragment)}
        if not target.is_file() or unquote(parts.fragment) not in known | {""}:
            found.append(f"{page.name}: {link}")
    return found


@pytest.mark.slow
def test_every_internal_link_leads_somewhere(pages: dict[Path, Anchors], tmp_path: Path) -> None:
    assert [link for page in pages for link in dead(page, pages)] == []
    planted = tmp_path / "planted.html"
    planted.write_text('<a href="no.html"></a><a href="#no"></a><a href="."></a><a href="#"></a>')
    assert len(dead(planted, {planted: Anchors(planted)})) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "package",
    [
        "nodelens",
        "nodelens.errors",
        "nodelens.statistics",
        "nodelens.model",
        "nodelens.data",
        "nodelens.plan",
        "nodelens.interventions",
        "nodelens.pruning",
        "nodelens.analysis.clustering",
        "nodelens.analysis.causal",
        "nodelens.configs",
        "nodelens.experiments",
        "nodelens.figures",
        "nodelens.report",
        "nodelens.tracking",
        "nodelens.testing",
    ],
)
def test_the_reference_has_every_public_name(package: str, pages: dict[Path, Anchors]) -> None:
    known = set().union(*(page.ids for page in pages.values()))
    module = importlib.import_module(package)
    homes = {n: getattr(getattr(module, n), "__module__", package) for n in module.__all__}
    # A function may have the name of the module it is in: documented there, not as that module.
    shadowed = {n for n, home in homes.items() if home == f"{package}.{n}"}
    lost = [
        name
        for name, home in homes.items()
        if f"{home}.{name}" not in known
        and (name in shadowed or f"{package}.{name}" not in known)
        and f"nodelens.{name}" not in known
    ]
    assert lost == []


@pytest.mark.slow
def test_the_search_knows_lenses_and_classes(site: Path) -> None:
    index = (site / "search" / "search_index.js").read_text("utf-8")
    wanted = ["pid_synergy", "CompositeLens", "LayerNotReachedError", "load_shrunk"]
    assert [word for word in wanted if word not in index] == []


@pytest.mark.slow
def test_every_block_of_code_is_one(site: Path) -> None:
    pages = [site / page.relative_to(DOCS).with_suffix(".html") for page in DOCS.rglob("*.md")]
    assert [page.name for page in pages if "<p>```" in page.read_text("utf-8")] == []
