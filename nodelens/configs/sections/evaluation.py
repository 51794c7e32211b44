"""The section `evaluation`: by what protocol the network is judged on the test part."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from nodelens.configs.sections.base import Count, Names, Section

__all__ = ["EvaluationSection"]


class EvaluationSection(Section):
    """How the whole network and every pruned one are judged: on test rows or test text only.

    A classifier's top-1 and top-5 accuracy and its loss; a language model's perplexity and loss.
    """

    rows: Count | None = None
    """Test rows looked at, all by default; not for language models."""
    block_size: Annotated[int, Field(ge=2)] | None = None
    """Tokens in a window, `dataset.block_size` by default; for language models."""
    stride: Count | None = None
    """Tokens from one window to the next, a window by default; for language models."""
    tokens: Annotated[int, Field(ge=2)] | None = None
    """Tokens of the test text that are looked at, all by default; for language models."""
    tasks: Names = ()
    """Tasks of lm-evaluation-harness (`pip install 'nodelens[lm-eval]'`); for language models."""
    task_limit: Count | None = None
    """Examples of every task that are looked at, all by default."""
