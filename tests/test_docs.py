"""The documentation runs, prints what it says it prints, and leaves nothing out."""

from __future__ import annotations

import ast
import importlib.util
import io
import math
import re
import sys
import textwrap
import typing
from contextlib import redirect_stdout
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import nodelens.errors
import nodelens.statistics
from nodelens import Lens, NodeLensError
from nodelens.configs.schema import Config, Section
from nodelens.registry import LENSES
from nodelens.statistics import Statistic

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
MOST_NOT_RUN = 4

FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
FLOAT = r"-?\d+\.\d+(?:e[-+]?\d+)?"


@dataclass(frozen=True)
class Block:
    """A Python block of a page, and the text block right behind it, which it has to print."""

    page: Path
    line: int
    code: str
    expected: str | None

    def run(self, namespace: dict[str, Any]) -> str:
        """Return what the block prints; an error it is meant to show counts as printed."""
        printed = io.StringIO()
        # Line numbers of a traceback are those of the page.
        code = compile("\n" * self.line + self.code, str(self.page), "exec")
        with redirect_stdout(printed):
            try:
                exec(code, namespace)
            except (NodeLensError, TypeError, RuntimeError) as error:
                name = type(error).__name__
                if not (self.expected or "").startswith(f"{name}: "):
                    raise
                return f"{name}: {error}"
        return printed.getvalue()


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    fences = list(FENCE.finditer(text))
    found = []
    for fence, after in zip_longest(fences, fences[1:]):
        if fence["info"].strip() != "python":
            continue
        shown = after is not None and after["info"] == "text"
        adjacent = shown and not text[fence.end() : after.start()].strip()
        line = text.count("\n", 0, fence.start()) + 1
        found.append(Block(page, line, fence["body"], after["body"] if adjacent else None))
    return found


def shows(expected: str, printed: str) -> bool:
    """Whether `printed` is what a page says: `...` is any text, numbers agree to 1%.

    >>> shows("a ... 1.00", "a b c 1.001"), shows("a 1.0", "a 2.0")
    (True, False)
    """
    parts = re.split(f"({FLOAT})", _tidy(expected))
    pattern = "".join(
        f"({FLOAT})" if i % 2 else re.escape(part).replace(r"\.\.\.", ".*?")
        for i, part in enumerate(parts)
    )
    match = re.fullmatch(pattern, _tidy(printed), re.DOTALL)
    return match is not None and all(
        math.isclose(float(said), float(found), rel_tol=0.01, abs_tol=1e-9)
        for said, found in zip(parts[1::2], match.groups(), strict=True)
    )


def _tidy(text: str) -> str:
    return " ".join(text.split())


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    kept = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.strip().replace(" ", "-") for heading in kept}


def broken_links(page: Path) -> list[str]:
    broken = []
    for link in LINK.finditer(FENCE.sub("", page.read_text("utf-8"))):
        target, _, anchor = link["target"].partition("#")
        if "://" in target:
            continue
        file = (page.parent / target).resolve() if target else page
        missing = not file.exists()
        if missing or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(link["target"])
    return broken


def config_keys(name: str, field: Any) -> list[str]:
    """The keys of a section, or the name of a key that is no section."""
    if typing.get_origin(field.annotation) is tuple:
        return [name]
    kinds = [field.annotation, *typing.get_args(field.annotation)]
    sections = [k for k in kinds if isinstance(k, type) and issubclass(k, Section)]
    return [f"{name}.{key}" for key in sections[0].model_fields] if sections else [name]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lenses and statistics that a page defines are gone after it."""
    LENSES.names()
    for store in ("_classes", "_aliases"):
        monkeypatch.setattr(LENSES, store, dict(getattr(LENSES, store)))
    monkeypatch.setattr(Statistic, "_classes", dict(Statistic._classes))


@pytest.mark.usefixtures("own_registry")
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=page_id)
def test_every_python_block_runs_and_prints_what_the_page_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    wrong = [
        f"{page_id(page)}:{block.line} prints\n{textwrap.indent(printed, '    ')}"
        for block in blocks(page)
        for printed in [block.run(vars(module))]
        if block.expected is not None and not shows(block.expected, printed)
    ]
    assert not wrong, "\n" + "\n".join(wrong)


def test_the_readme_shows_python_with_its_output() -> None:
    assert any(block.expected for block in blocks(ROOT / "README.md"))


def test_few_blocks_are_not_run() -> None:
    infos = [fence["info"] for page in PAGES for fence in FENCE.finditer(page.read_text("utf-8"))]
    assert {info for info in infos if info.startswith("python")} <= {"python", "python no-run"}
    assert infos.count("python no-run") <= MOST_NOT_RUN


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_internal_links_resolve(page: Path) -> None:
    assert broken_links(page) == []


def test_the_lens_pages_are_those_of_the_registry() -> None:
    pages = script("lens_pages")
    assert pages.stale(pages.pages()) == [], "run python scripts/lens_pages.py"


def test_which_metric_names_every_lens() -> None:
    text = (DOCS / "which-metric.md").read_text("utf-8")
    built_in = [n for n in Lens.names() if Lens.named(n).__module__.startswith("nodelens_lenses.")]
    assert [name for name in built_in if f"[`{name}`]" not in text] == []


def test_lenses_become_links_once() -> None:
    linked = script("lens_pages").linked
    once = linked("`rq` and `no_such_lens`")
    assert once == "[`rq`](lenses/rayleigh_quotient.md) and `no_such_lens`"
    assert linked(once) == once


def test_figures_of_lenses_are_small_and_of_a_lens() -> None:
    assert list(script("lens_figures").faults()) == []


def test_the_page_of_files_is_theirs_and_nothing_is_too_long() -> None:
    structure = script("structure")
    files = structure.files()
    assert structure.PAGE.read_text() == structure.page(files), "run python scripts/structure.py"
    assert not structure.too_long(files)


def test_the_walk_through_of_one_batch_names_what_there_is() -> None:
    page = (DOCS / "how-it-works.md").read_text("utf-8")
    told = page.partition("## One batch,")[2].partition("\n## ")[0]
    names = set(re.findall(r"`([A-Za-z_.]+)`", told)) - {"run"}
    there = set()
    for path in (ROOT / "nodelens").rglob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
<<<<<<< HEAD
                inner = [part.name for part in node.body if isinstance(part, ast.FunctionDef)]
=======
                inner = [
                    n.name for n in getattr(node, "body", ()) if isinstance(n, ast.FunctionDef)
                ]
>>>>>>> ne
                there |= {node.name, *inner, *(f"{node.name}.{name}" for name in inner)}
    assert len(names) > 20 and sorted(names - there) == []


def test_every_error_class_is_in_the_error_index() -> None:
    classes = [n for n in nodelens.errors.__all__ if isinstance(getattr(nodelens.errors, n), type)]
    headings = anchors(DOCS / "errors.md")
    assert [name for name in classes if name.lower() not in headings] == []


def test_every_statistic_is_documented() -> None:
    public = [getattr(nodelens.statistics, name) for name in nodelens.statistics.__all__]
    concrete = [
        s.__name__
        for s in public
        if isinstance(s, type) and issubclass(s, Statistic) and not s.__abstractmethods__
    ]
    headings = anchors(DOCS / "statistics.md")
    assert [name for name in concrete if name.lower() not in headings] == []


def test_every_key_of_a_configuration_is_documented() -> None:
    text = (DOCS / "experiments.md").read_text("utf-8")
    keys = [key for name, field in Config.model_fields.items() for key in config_keys(name, field)]
    assert [key for key in keys if f"| `{key}` |" not in text] == []


def test_every_page_is_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or not page.exists():
            continue
        reached.add(page)
        targets = [link["target"].partition("#")[0] for link in LINK.finditer(page.read_text())]
        waiting += [(page.parent / t).resolve() for t in targets if t.endswith(".md")]
    assert [page_id(page) for page in PAGES if page not in reached] == []


def test_images_are_there_and_small() -> None:
    images = list((DOCS / "images").iterdir())
    assert images and all(image.stat().st_size < 150_000 for image in images)


def test_a_wrong_number_and_a_wrong_word_are_noticed() -> None:
    assert shows("a 0.50 b", "a  0.502\nb")
    assert not shows("a 0.50 b", "a 0.52 b")
    assert not shows("a 0.50 b", "a 0.50 c")
