"""Every file's purpose in a line, and how long files and functions are.

`python scripts/structure.py` writes `docs/files.md` and prints the lengths. With `--check` it
writes nothing, and its exit code is 1 when the page is out of date or something is too long.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "files.md"
FOLDERS = ("nodelens", "lenses/nodelens_lenses")
MOST_LINES, MEDIAN_BODY, LONG_BODY = 400, 8, 30

HEAD = """# Every file in a line

Made by `scripts/structure.py` from the files' own first lines. How they work together is told in
[How it works](how-it-works.md).
"""


def main() -> None:
    """Write the page, or check it, and print the lengths."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    text = page(files())
    if not check:
        PAGE.write_text(text)
    stale = PAGE.read_text() != text
    print(f"docs/files.md is {'out of date' if stale else 'up to date'}")
    sys.exit(int(too_long(files()) or stale) if check else 0)


def files() -> list[Path]:
    """Return the files of the core and of the lenses."""
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def page(paths: list[Path]) -> str:
    """Return the page: one table a folder, one line a file."""
    folders: dict[str, list[Path]] = {}
    for path in paths:
        folders.setdefault(str(path.parent.relative_to(ROOT)), []).append(path)
    parts = [HEAD]
    for folder in sorted(folders):
        rows = [f"| `{path.name}` | {purpose(path)} |" for path in folders[folder] if purpose(path)]
        parts.append("\n".join([f"## {folder}", "", "| file | purpose |", "|---|---|", *rows, ""]))
    return "\n".join(parts)


def purpose(path: Path) -> str:
    """Return the first sentence or line of a file's docstring."""
    written = ast.get_docstring(ast.parse(path.read_text())) or ""
    return written.partition("\n\n")[0].replace("\n", " ").replace("|", "\\|")


def too_long(paths: list[Path]) -> bool:
    """Print how long files and function bodies are, and return whether that is too long."""
    lines = {path: len(path.read_text().splitlines()) for path in paths}
    bodies = [length for path in paths for length in body_lengths(path)]
    middle, long = median(bodies), quantiles(bodies, n=20)[-1]
    longest = max(lines, key=lambda path: lines[path])
    print(f"{len(paths)} files, {sum(lines.values())} lines, {len(bodies)} functions")
    print(
        f"longest file: {longest.relative_to(ROOT)}, {lines[longest]} lines (at most {MOST_LINES})"
    )
    print(f"function bodies: median {middle:g} lines (at most {MEDIAN_BODY}), ", end="")
    print(f"95th centile {long:g} (at most {LONG_BODY})")
    return lines[longest] > MOST_LINES or middle > MEDIAN_BODY or long > LONG_BODY


def body_lengths(path: Path) -> Iterator[int]:
    """Yield the lines of every function's body, without its docstring."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            yield body[-1].end_lineno - body[0].lineno + 1 if body else 0  # type: ignore[operator]


if __name__ == "__main__":
    main()
