"""Plain text from wiki markup: what a reader sees, without tables, templates and references."""

from __future__ import annotations

import html
import re
from collections.abc import Callable

__all__ = ["strip_markup"]

_BACK_MATTER = re.compile(
    r"^==\s*(?:see also|references|notes|footnotes|citations|bibliography|sources"
    r"|further reading|external links)\s*==\s*$",
    re.IGNORECASE | re.MULTILINE,
)
_HIDDEN = re.compile(
    r"<!--.*?-->"
    r"|<(ref|math|gallery|timeline|source|score|imagemap|syntaxhighlight)\b[^<>]*(?<!/)>.*?</\1\s*>"
    r"|<ref\b[^<>]*/>",
    re.IGNORECASE | re.DOTALL,
)
# The innermost of nested marks, of which the outer ones are met in the next round.
_INSIDE = r"((?:(?!\[\[|\]\]|\{\{|\}\}).)*)"
_LINK_OR_TEMPLATE = re.compile(rf"\[\[{_INSIDE}\]\]|\{{\{{{_INSIDE}\}}\}}", re.DOTALL)
_TABLE = re.compile(r"\{\|(?:(?!\{\||\|\}).)*\|\}", re.DOTALL)
_INVISIBLE_LINK = re.compile(r"\s*(?:file|image|category|[a-z]{2,3}(?:-[a-z]+)?):", re.IGNORECASE)
_REST = [
    (re.compile(r"\[(?:https?:)?//\S+\s*([^\]]*)\]"), r"\1"),
    (re.compile(r"'{2,}"), ""),
    (re.compile(r"^=+\s*(.*?)\s*=+\s*$", re.MULTILINE), r"\1"),
    (re.compile(r"^[*#:;]+\s*", re.MULTILINE), ""),
    (re.compile(r"<br\s*/?>", re.IGNORECASE), "\n"),
    (re.compile(r"</?[a-z][^<>]*>", re.IGNORECASE), ""),
    (re.compile(r"__[A-Z]+__"), ""),
    (re.compile(r"[^\S\n]+"), " "),
    (re.compile(r" ?\([ ,;:]*\)"), ""),
    (re.compile(r"\(\s*[,;:]\s*"), "("),
    (re.compile(r" +([,.;:)\n])"), r"\1"),
    (re.compile(r"\n{3,}"), "\n\n"),
]


def strip_markup(markup: str) -> str:
    """Return the readable text of an article in wiki markup, blank lines between paragraphs.

    References, templates, tables, pictures, formulas and the back matter (from *See also* on) are
    left out; links and headings leave their words.

    >>> strip_markup("'''Albedo''' is the [[reflection (physics)|reflecting power]].<ref>A</ref>")
    'Albedo is the reflecting power.'
    """
    text = _HIDDEN.sub("", markup)
    text = _BACK_MATTER.split(text, maxsplit=1)[0]
    text = _replace_nested(_LINK_OR_TEMPLATE, _words, text)
    text = _replace_nested(_TABLE, lambda table: "", text)
    text = html.unescape(text)
    for pattern, replacement in _REST:
        text = pattern.sub(replacement, text)
    return text.strip()


def _replace_nested(
    pattern: re.Pattern[str], words: Callable[[re.Match[str]], str], text: str
) -> str:
    found = 1
    while found:
        text, found = pattern.subn(words, text)
    return text


def _words(match: re.Match[str]) -> str:
    link, template = match.groups()
    return _template_words(template) if link is None else _link_words(link)


def _link_words(inside: str) -> str:
    return "" if _INVISIBLE_LINK.match(inside) else inside.rsplit("|", 1)[-1]


def _template_words(inside: str) -> str:
    """Return the words of the templates that stand inside sentences, nothing for the others."""
    name, *values = (part.strip() for part in inside.split("|"))
    if name.lower() in ("convert", "cvt") and len(values) >= 2:
        return f"{values[0]} {values[1]}"
    return values[-1] if name.lower() == "lang" and values else ""
