"""Docstrings as the reference shows them: examples of the interpreter become blocks of code."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^>>> .*?(?=^\s*$|\Z)", re.MULTILINE | re.DOTALL)
ROLE = re.compile(r":(?:meth|class|func|mod|attr):(?=`)")


class Docstrings(griffe.Extension):
    """Rewrites every docstring once, when it is read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Make Markdown of what is none in a docstring."""
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(docstring: str) -> str:
    """Return a docstring as Markdown."""
    text = ROLE.sub("", docstring)
    return EXAMPLE.sub(lambda example: f"```pycon\n{example[0].rstrip()}\n```\n", text)
