"""`python -m projects.figure_gallery`: draw every figure on real results.

Writes `docs/figures.md` and its images. Needs `make models`; takes about a minute.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import nodelens.figures
from nodelens.figures import save_figure
from nodelens.files import write_text
from projects.figure_gallery.entries import ENTRIES, Entry
from projects.figure_gallery.measure import DOCS, measured

_HEAD = Path(__file__).with_name("head.md")


def main() -> None:
    """Measure what is drawn, draw it, and write the page."""
    torch.set_num_threads(1)
    known = {**vars(nodelens.figures), **measured()}
    parts = [_HEAD.read_text(encoding="utf-8").rstrip()]
    for entry in ENTRIES:
        parts.append(_part(entry))
        _draw(entry, known)
        print(entry.call)
    write_text(DOCS / "figures.md", "\n\n".join(parts) + "\n")


def _part(entry: Entry) -> str:
    return (
        f"## {entry.title}\n\n`{entry.call}`\n\n"
        f"![{entry.title}](images/figure-{entry.name}.png)\n\n{entry.text}"
    )


def _draw(entry: Entry, known: dict[str, Any]) -> None:
    # What is printed is what is run.
    drawn = eval(entry.call, dict(known))
    save_figure(drawn, DOCS / "images" / f"figure-{entry.name}.png", dpi=110)


if __name__ == "__main__":
    main()
