"""The report in two further forms: Markdown for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from nodelens.report.page import Figure, Page, Part, Table

__all__ = ["render_markdown", "report_data"]

_SHOWN = 30
"""Rows of a table in Markdown."""


def render_markdown(page: Page) -> str:
    """Return the report as Markdown; figures are read from the run directory beside it."""
    lines = [f"# {page.findings.headline}.", page.findings.lede]
    for answer in page.answers():
        lines.append(f"## {answer['question']}")
        numbers = [(number.value, number.label, number.note) for number in answer["numbers"]]
        lines += [_numbers(numbers), *answer["sentences"]]
    lines.append(_listed(page.others()))
    if page.curves:
        lines += ["## What happens without them: the curves", *map(_figure, page.curves)]
        lines += [_table(page.accuracies)] if page.accuracies else []
    for part in page.parts:
        lines += _part(part)
    for title, figure in (
        ("Which scores agree", page.correlation),
        ("Where in the network", page.heatmap),
    ):
        if figure:
            reading = page.findings.readings.get(figure.name, "")
            lines += [f"## {title}", reading, _figure(figure)]
    lines += ["## How this was made", _pairs(page.protocol.items()), _pairs(page.facts.items())]
    return "\n\n".join(line for line in lines if line) + "\n"


def report_data(page: Page) -> dict[str, Any]:
    """Return the report as plain data; scores of channels stay in their own files."""
    return {
        "title": page.title,
        "kind": page.kind,
        "headline": page.findings.headline,
        "lede": page.findings.lede,
        "answers": [
            {**answer, "numbers": [vars(number) for number in answer["numbers"]]}
            for answer in page.answers()
        ],
        "findings": list(page.findings.sentences),
        "sections": [_part_data(part) for part in page.parts],
        "protocol": dict(page.protocol),
        "facts": dict(page.facts),
        "files": dict(page.files),
    }


def _part_data(part: Part) -> dict[str, Any]:
    return {
        "title": part.title,
        "sentence": part.sentence,
        "findings": list(part.findings),
        "numbers": [
            dict(zip(("value", "label", "note"), number, strict=True)) for number in part.numbers
        ],
        "tables": [{"title": table.title, "file": table.file} for table in part.tables],
        "figures": [{"file": figure.file, "alt": figure.alt} for figure in part.figures],
        "how": part.how,
    }


def _part(part: Part) -> list[str]:
    figures = [text for figure in part.figures for text in (figure.caption, _figure(figure))]
    tables = [text for table in part.tables for text in (table.title, table.note, _table(table))]
    sentences = [part.sentence, _numbers(part.numbers), _listed(part.findings)]
    return [f"## {part.title}", *sentences, *figures, *tables, part.how]


def _figure(figure: Figure) -> str:
    return f"![{_inline(figure.alt)}]({figure.file}.png)" if figure.file else ""


def _numbers(numbers: Sequence[tuple[str, str, str]]) -> str:
    return _listed(
        f"**{value}** {label}" + (f" ({note})" if note else "") for value, label, note in numbers
    )


def _listed(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    return _table(Table(["what", "how"], [[name, text] for name, text in pairs]))


def _table(table: Table) -> str:
    marks = ["---:" if numeric else "---" for numeric in table.numeric]
    rows = [table.columns, marks, *table.rows[:_SHOWN]]
    text = "\n".join(f"| {' | '.join(_inline(cell) for cell in row)} |" for row in rows)
    left = len(table.rows) - _SHOWN + table.omitted
    return text + (f"\n\n{left:,} more rows are in `{table.file}`." if left > 0 else "")


def _inline(text: str) -> str:
    for mark, safe in (("|", "\\|"), ("<", "&lt;"), ("\n", " ")):
        text = text.replace(mark, safe)
    return text
