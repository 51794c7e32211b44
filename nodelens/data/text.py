"""Named texts that need no download, and blocks of tokens made from them."""

from __future__ import annotations

import bz2
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from xml.etree import ElementTree

import torch
from torch import Tensor

from nodelens.data.wikitext import strip_markup
from nodelens.errors import InvalidValueError, TooFewRowsError, UnknownNameError, nearest

__all__ = [
    "Document",
    "Tokenizer",
    "load_text",
    "text_batches",
    "text_names",
    "token_blocks",
    "token_ids",
]

_WHEEL = "gensim-*.whl"
_ARTICLES = (
    "gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
)
_NEWS = "gensim/test/test_data/lee_background.cor"
_SHORTEST_ARTICLE = 500  # characters; below are lists of links, not prose


@dataclass(frozen=True)
class Document:
    """One text and what it is called."""

    title: str
    text: str


class Tokenizer(Protocol):
    """What is used of a Hugging Face tokenizer."""

    eos_token_id: Any

    def __call__(
        self, text: str, /, *, add_special_tokens: bool, verbose: bool
    ) -> Mapping[str, Any]:
        """Return the token ids of `text` under `input_ids`."""
        ...


def text_names() -> list[str]:
    """Return the names that :func:`load_text` knows, sorted.

    >>> text_names()
    ['encyclopaedia', 'news', 'pydoc']
    """
    return sorted(_SOURCES)


def load_text(name: str = "pydoc", root: str | Path = ".models") -> list[Document]:
    """Return the documents of the text called `name`, always in the same order.

    `pydoc` is the technical English of Python's own documentation and comes with every Python;
    `encyclopaedia` (articles, CC-BY-SA) and `news` (300 short stories) are read from the package
    file that `make models` leaves in `root`.

    >>> load_text("pydoc")[0].title
    'assert'

    Raises:
        UnknownNameError: no such text.
        InvalidValueError: its package file is not in `root`.
    """
    if name not in _SOURCES:
        raise UnknownNameError(
            f"no text {name!r}{nearest(name, _SOURCES)}; there are {', '.join(_SOURCES)}"
        )
    return _SOURCES[name](Path(root))


def token_blocks(
    documents: Iterable[Document], tokenizer: Tokenizer, block_size: int, count: int | None = None
) -> dict[str, Tensor]:
    """Return `input_ids` and `attention_mask`, int64 of shape `(blocks, block_size)`.

    Documents stand one after another, each closed by the end-of-text token, and are cut into full
    blocks: nothing is padded, so the mask is all ones; a last part shorter than a block is left
    out. With `count`, tokenizing stops after so many blocks.

    Raises:
        TooFewRowsError: the documents do not fill `count` blocks, or not even one.
        InvalidValueError: `block_size` or `count` below one, or no end-of-text token.
    """
    if block_size < 1 or (count is not None and count < 1):
        raise InvalidValueError(
            f"block_size is {block_size} and count {count}, expected at least 1"
        )
    ids = token_ids(documents, tokenizer, None if count is None else count * block_size)
    blocks = len(ids) // block_size
    if blocks < (count or 1):
        raise TooFewRowsError(
            f"the documents hold {len(ids)} tokens: {blocks} blocks of {block_size}, "
            f"expected {count or 'at least 1'}"
        )
    blocks = blocks if count is None else count
    input_ids = torch.tensor(ids[: blocks * block_size], dtype=torch.int64)
    input_ids = input_ids.view(blocks, block_size)
    return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}


def token_ids(
    documents: Iterable[Document], tokenizer: Tokenizer, enough: int | None = None
) -> list[int]:
    """Return the tokens of the documents one after another, each closed by the end-of-text token.

    Stops behind the document with which there are `enough`.
    """
    ids: list[int] = []
    for document in documents:
        ids += _document_ids(document, tokenizer)
        if enough is not None and len(ids) >= enough:
            break
    return ids


def text_batches(
    name: str,
    tokenizer: Tokenizer,
    batch_size: int,
    block_size: int,
    tokens: int,
    root: str | Path = ".models",
) -> Iterator[dict[str, Tensor]]:
    """Yield batches of :func:`token_blocks` of a named text, each of shape `(batch, block_size)`.

    `tokens // block_size` blocks in all, `batch_size` a batch, the last batch perhaps fewer.
    """
    if batch_size < 1 or tokens < block_size:
        raise InvalidValueError(
            f"batch_size is {batch_size} and tokens {tokens}, "
            f"expected at least 1 and at least one block of {block_size}"
        )
    blocks = token_blocks(load_text(name, root), tokenizer, block_size, tokens // block_size)
    for start in range(0, len(blocks["input_ids"]), batch_size):
        yield {key: value[start : start + batch_size] for key, value in blocks.items()}


def _document_ids(document: Document, tokenizer: Tokenizer) -> list[int]:
    end = tokenizer.eos_token_id
    if end is None:
        raise InvalidValueError(
            f"{type(tokenizer).__name__} has no eos_token_id, which is needed to join documents"
        )
    # verbose=False: a document longer than the model's context is expected here, it is cut later.
    ids = tokenizer(document.text, add_special_tokens=False, verbose=False)["input_ids"]
    return [*ids, int(end)]


def _pydoc(root: Path) -> list[Document]:
    from pydoc_data.topics import topics

    return [Document(title, text.strip()) for title, text in sorted(topics.items())]


def _news(root: Path) -> list[Document]:
    lines = _wheel_member(root, _NEWS).decode("utf-8").splitlines()
    return [Document(f"news {number}", line.strip()) for number, line in enumerate(lines, 1)]


def _encyclopaedia(root: Path) -> list[Document]:
    pages = ElementTree.fromstring(bz2.decompress(_wheel_member(root, _ARTICLES)))
    articles = (_article(page) for page in pages.iterfind("{*}page"))
    return [article for article in articles if len(article.text) >= _SHORTEST_ARTICLE]


def _article(page: ElementTree.Element) -> Document:
    """Return the page's title and plain text; the text of a redirect is empty."""
    title = page.findtext("{*}title", default="")
    if page.find("{*}redirect") is not None or page.findtext("{*}ns") != "0":
        return Document(title, "")
    return Document(title, strip_markup(page.findtext("{*}revision/{*}text", default="")))


def _wheel_member(root: Path, member: str) -> bytes:
    wheels = sorted(root.glob(_WHEEL))
    if not wheels:
        raise InvalidValueError(
            f"this text is read from a package file {_WHEEL}, and {str(root)!r} has none: "
            "run `make models`"
        )
    with zipfile.ZipFile(wheels[-1]) as wheel:
        return wheel.read(member)


_SOURCES: dict[str, Callable[[Path], list[Document]]] = {
    "pydoc": _pydoc,
    "encyclopaedia": _encyclopaedia,
    "news": _news,
}
