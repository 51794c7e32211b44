"""Named texts, wiki markup, and blocks of tokens."""

from __future__ import annotations

import bz2
import zipfile

import pytest
import torch

from nodelens.data.text import Document, load_text, text_batches, text_names, token_blocks
from nodelens.data.wikitext import strip_markup
from nodelens.errors import InvalidValueError, TooFewRowsError, UnknownNameError


class Letters:
    """A tokenizer of one token a character; 0 ends a text."""

    eos_token_id: int | None = 0

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, text, /, *, add_special_tokens, verbose):
        assert not add_special_tokens and not verbose
        self.calls += 1
        return {"input_ids": [ord(character) for character in text]}


def documents(*texts: str) -> list[Document]:
    return [Document(f"text {number}", text) for number, text in enumerate(texts)]


def test_documents_are_joined_by_the_end_token_and_cut_into_full_blocks():
    blocks = token_blocks(documents("abc", "de", "fgh"), Letters(), block_size=4)
    letters = ["".join(chr(i) if i else "|" for i in row) for row in blocks["input_ids"].tolist()]
    assert letters == ["abc|", "de|f"]  # "gh|" does not fill a block
    assert blocks["input_ids"].dtype == torch.int64
    assert torch.equal(blocks["attention_mask"], torch.ones(2, 4, dtype=torch.int64))


def test_a_count_stops_tokenizing_once_it_is_reached():
    tokenizer = Letters()
    blocks = token_blocks(documents("abcdefgh", "ij", "kl"), tokenizer, block_size=2, count=3)
    assert blocks["input_ids"].shape == (3, 2)
    assert tokenizer.calls == 1


@pytest.mark.parametrize("count", [None, 2])
def test_a_text_that_is_too_short_says_how_many_tokens_it_has(count):
    with pytest.raises(TooFewRowsError, match=r"3 tokens: 0 blocks of 4, expected (2|at least 1)"):
        token_blocks(documents("ab"), Letters(), block_size=4, count=count)


@pytest.mark.parametrize(("block_size", "count"), [(0, None), (4, 0)])
def test_sizes_below_one_are_refused(block_size, count):
    with pytest.raises(InvalidValueError, match=f"block_size is {block_size} and count {count}"):
        token_blocks(documents("abcdefgh"), Letters(), block_size, count)


def test_a_tokenizer_without_an_end_token_is_refused():
    tokenizer = Letters()
    tokenizer.eos_token_id = None
    with pytest.raises(InvalidValueError, match="Letters has no eos_token_id"):
        token_blocks(documents("abcdefgh"), tokenizer, block_size=2)


def test_batches_of_a_named_text_hold_the_tokens_asked_for():
    batches = list(text_batches("pydoc", Letters(), batch_size=3, block_size=16, tokens=130))
    assert [tuple(batch["input_ids"].shape) for batch in batches] == [(3, 16), (3, 16), (2, 16)]
    together = torch.cat([batch["input_ids"] for batch in batches]).flatten().tolist()
    assert "".join(map(chr, together)).startswith('The "assert" statement')


def test_batches_smaller_than_one_block_are_refused():
    with pytest.raises(InvalidValueError, match="tokens 15"):
        next(text_batches("pydoc", Letters(), batch_size=3, block_size=16, tokens=15))


def test_pydoc_is_the_embedded_default_and_comes_in_order():
    topics = load_text()
    assert [topic.title for topic in topics] == sorted(topic.title for topic in topics)
    assert sum(len(topic.text) for topic in topics) > 400_000
    assert topics == load_text("pydoc")


def test_an_unknown_text_names_the_nearest_and_all():
    with pytest.raises(UnknownNameError, match=r"'encyclopedia' .*'encyclopaedia'\?.*news"):
        load_text("encyclopedia")
    assert text_names() == ["encyclopaedia", "news", "pydoc"]


@pytest.mark.parametrize("name", ["encyclopaedia", "news"])
def test_a_text_without_its_package_file_says_what_to_run(name, tmp_path):
    with pytest.raises(InvalidValueError, match="make models"):
        load_text(name, root=tmp_path)


PAGE = "<page><title>{}</title><ns>{}</ns>{}<revision><text>{}</text></revision></page>"
PROSE = "It is a '''word'''. " * 40


def test_articles_are_the_pages_that_hold_prose(tmp_path):
    pages = [
        PAGE.format("Prose", 0, "", PROSE),
        PAGE.format("Talk", 1, "", PROSE),
        PAGE.format("Moved", 0, '<redirect title="Prose"/>', PROSE),
        PAGE.format("Short", 0, "", "It is short."),
    ]
    dump = f'<mediawiki xmlns="http://example.org/">{"".join(pages)}</mediawiki>'
    folder = "gensim/test/test_data/"
    with zipfile.ZipFile(tmp_path / "gensim-0-none-any.whl", "w") as wheel:
        wheel.writestr(
            f"{folder}enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2",
            bz2.compress(dump.encode()),
        )
        wheel.writestr(f"{folder}lee_background.cor", "First story.\nSecond story.\n")
    assert load_text("encyclopaedia", tmp_path) == [
        Document("Prose", "It is a word. " * 39 + "It is a word.")
    ]
    assert [story.text for story in load_text("news", tmp_path)] == [
        "First story.",
        "Second story.",
    ]


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("a [[link]] and [[target|its words]]", "a link and its words"),
        ("[[File:x.png|thumb|a [[caption]] [sic] {{small|x}}]]after", "after"),
        ("[[Category:Words]][[de:Wort]]kept", "kept"),
        ("{{Infobox|a={{nested|b}}|c=d}}kept", "kept"),
        ("{{lang|fr|[[mot|le mot]]}} of {{convert|5|km|mi}}", "le mot of 5 km"),
        ("[[place|{{coord|1|N}}here]]", "here"),
        ("a<ref name=x/> b<ref>{{cite|c}}</ref> c<!-- no\nmore -->", "a b c"),
        ("{|class=x\n|a\n{|\n|b\n|}\n|}kept", "kept"),
        ("[http://example.org its words] and [1890]", "its words and [1890]"),
        ("'''bold''' ''italic''", "bold italic"),
        ("== Heading ==\n* one\n*# two", "Heading\none\ntwo"),
        ("word ({{IPA|x}}) here ({{IPA|x}}; or so)", "word here (or so)"),
        ("a &amp; b&nbsp;<small>c</small> &lt; d", "a & b c < d"),
        ("kept\n== See also ==\n* gone", "kept"),
        ("a\n\n\n\nb   c", "a\n\nb c"),
    ],
)
def test_markup_leaves_what_a_reader_sees(markup, text):
    assert strip_markup(markup) == text


def test_unbalanced_marks_end_and_stay():
    assert strip_markup("{{open [[open") == "{{open [[open"


@pytest.mark.models
def test_the_encyclopaedia_is_clean_prose():
    articles = load_text("encyclopaedia")
    together = "\n".join(article.text for article in articles)
    assert len(articles) > 90 and len(together) > 2_000_000
    for mark in ("{{", "}}", "[[", "]]", "<ref", "''", "&nbsp;"):
        assert mark not in together


@pytest.mark.models
def test_the_news_are_three_hundred_stories():
    assert len(load_text("news")) == 300
