"""What the site needs beyond MkDocs: hooks, named in mkdocs.yml.

Formulas become MathML at build time, so that no page loads a script or a font for them. Pages link
to files outside docs/ as the code host shows them; those files become pages of the site, under
source/. The lens pages get their places in the navigation from the tables of docs/lenses/index.md.
"""

from __future__ import annotations

import html
import os
import posixpath
import re
from pathlib import Path
from typing import Any

from math_core import LatexToMathML
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
SOURCE = "source"

FENCE = re.compile(r"^(`{3,}).*?^\1$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"\A<!--.*?-->\s*", re.DOTALL)
LINK = re.compile(r"(?P<text>\[[^\]]*\])\((?P<path>[^)\s:#]+)(?P<anchor>#[^)\s]*)?\)")
FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<tex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)
FAMILY = re.compile(r"^## (.+)$|^\| \[(\w+)\]\((\w+\.md)\)", re.MULTILINE)
LANGUAGES = {".py": "python", ".c": "c", ".toml": "toml", ".yaml": "yaml", ".sh": "sh"}

CONVERTER = LatexToMathML()


def on_config(config: Any) -> Any:
    """Give every lens its place in the navigation, under its family."""
    sections = next(entry for entry in config.nav if "Lenses" in entry)
    sections["Lenses"] = ["lenses/index.md", *lens_nav((DOCS / "lenses/index.md").read_text())]
    return config


def lens_nav(index: str) -> list[dict[str, list[dict[str, str]]]]:
    """Return the families of the index of lenses as sections, each with its pages by name."""
    families: list[tuple[str, list[dict[str, str]]]] = []
    for heading, name, page in FAMILY.findall(index):
        if heading:
            families.append((heading, []))
        else:
            families[-1][1].append({name: f"lenses/{page}"})
    return [{name.capitalize(): pages} for name, pages in families if pages]


def on_files(files: Files, *, config: Any) -> Files:
    """Add the files outside docs/ that pages link to, and those that these link to."""
    waiting = [ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        if not path.is_relative_to(DOCS):
            files.append(File.generated(config, home(path), content=as_page(path)))
        if path.suffix == ".md":
            waiting += [file for file in linked(path) if not file.is_relative_to(DOCS)]
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Turn links that leave docs/ to the pages made of those files; let the title come first."""
    if page.file.generated_by:
        return markdown
    # The mark is for our tests; here a fence with it would not be one.
    markdown = COMMENT.sub("", markdown).replace("```python no-run", "```python")
    return redirected(markdown, DOCS / page.file.src_uri)


def on_page_content(content: str, **_: Any) -> str:
    """Typeset the formulas of a page."""
    return FORMULA.sub(typeset, content)


def typeset(found: re.Match[str]) -> str:
    """Return a formula as MathML; a LatexError names what cannot be typeset."""
    block = found["tag"] == "div"
    tex = html.unescape(found["tex"]).strip()
    mathml = CONVERTER.convert_with_local_state(tex, displaystyle=block)
    return f'<div class="formula">{mathml}</div>' if block else mathml


def home(path: Path) -> str:
    """Return where in the site a file of the repository stands."""
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    name = path.relative_to(ROOT).as_posix()
    return f"{SOURCE}/{name}" if path.suffix == ".md" else f"{SOURCE}/{name}.md"


def as_page(path: Path) -> str:
    """Return a file as Markdown: a page as it is, code in a block."""
    text = path.read_text("utf-8")
    if path.suffix == ".md":
        return redirected(text, path)
    language = LANGUAGES.get(path.suffix, "text")
    return f"# {path.relative_to(ROOT).as_posix()}\n\n````{language}\n{text}\n````\n"


def linked(page: Path) -> list[Path]:
    """Return the files that a page of Markdown links to."""
    text = FENCE.sub("", page.read_text("utf-8"))
    targets = (target_of(link, page) for link in LINK.finditer(text))
    return [path for path in targets if path.is_file()]


def target_of(link: re.Match[str], page: Path) -> Path:
    """Return the file or folder that a link of a page names."""
    return Path(os.path.normpath(page.parent / link["path"]))


def redirected(markdown: str, page: Path) -> str:
    """Return a page whose links fit its place in the site; one to a folder is left as text."""

    def redirect(link: re.Match[str]) -> str:
        target = target_of(link, page)
        inside = page.is_relative_to(DOCS) and target.is_relative_to(DOCS)
        if inside or not target.exists():
            return link[0]
        if target.is_dir():
            return link["text"][1:-1]
        way = posixpath.relpath(home(target), posixpath.dirname(home(page)))
        return f"{link['text']}({way}{link['anchor'] or ''})"

    kept, end = [], 0
    for fence in FENCE.finditer(markdown):
        kept += [LINK.sub(redirect, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*kept, LINK.sub(redirect, markdown[end:])])
