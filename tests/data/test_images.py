"""Images of folders and of Hugging Face data sets, against arrays that are known."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nodelens.data.datasets import load_dataset
from nodelens.data.hub import hub_texts, is_hub_name
from nodelens.data.images import ImageOptions, read_images
from nodelens.errors import (
    InvalidValueError,
    MissingPackageError,
    OutputError,
    UnknownOptionError,
)

RED, GREEN = (255, 0, 0), (0, 255, 0)


def painted(colour: tuple[int, int, int], size: tuple[int, int] = (8, 4)) -> Image.Image:
    """An image whose left and right quarters are black: the middle cut out of it is not."""
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    pixels[:, size[0] // 4 : -size[0] // 4] = colour
    return Image.fromarray(pixels)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, colour in (("apple", RED), ("beech", GREEN)):
        (tmp_path / "trees" / name).mkdir(parents=True)
        for number in range(6):
            painted(colour).save(tmp_path / "trees" / name / f"{number}.png")
    return tmp_path / "trees"


def test_the_middle_of_an_image_is_read_in_its_colours(folder):
    options = ImageOptions(4, mean=(0.5, 0.0, 0.0), deviation=(0.5, 1.0, 2.0))
    images, classes, note = read_images(folder, options)
    assert images.shape == (12, 3, 4, 4) and classes.tolist() == [0] * 6 + [1] * 6
    assert torch.equal(images[0], torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, 4, 4))
    assert torch.equal(images[6, :, 0, 0], torch.tensor([-1.0, 1.0, 0.0]))
    assert note == "12 images from files, 4 x 4"


def test_rows_are_drawn_by_the_seed(folder):
    def drawn(seed: int) -> list[int]:
        return ImageOptions(rows=4).drawn(12, seed)

    assert drawn(0) == drawn(0) != drawn(1) and len(set(drawn(0))) == 4
    assert len(read_images(folder, ImageOptions(4, rows=4))[0]) == 4


def test_a_folder_is_a_data_set_and_files_may_name_their_class(folder, tmp_path):
    found = load_dataset("images", 0, 0.25, folder, {"image_size": 4})
    assert (len(found.train), len(found.test), found.classes, found.shape) == (9, 3, 2, (3, 4, 4))
    painted(RED).save(tmp_path / "a_7.png")
    assert read_images([tmp_path / "a_7.png"], ImageOptions(4))[1].tolist() == [7]


def test_what_is_no_image_or_no_option_is_an_error(folder, tmp_path):
    with pytest.raises(UnknownOptionError, match=r"'image_siz' .*did you mean 'image_size'"):
        load_dataset("images", 0, 0.2, folder, {"image_siz": 4})
    with pytest.raises(UnknownOptionError, match="'digits' is read as it is"):
        load_dataset("digits", options={"rows": 4})
    with pytest.raises(InvalidValueError, match="none was given"):
        load_dataset("images")
    with pytest.raises(InvalidValueError, match="is no folder"):
        load_dataset("images", folder=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidValueError, match="no images in 'empty'"):
        load_dataset("images", folder=tmp_path / "empty")
    (folder / "apple" / "broken.png").write_bytes(b"no image")
    with pytest.raises(InvalidValueError, match=r"'broken.png' is no image"):
        load_dataset("images", folder=folder)


class Split(list[dict[str, Any]]):
    """As much of a data set's split as is used."""

    @property
    def column_names(self) -> list[str]:
        return [*self[0]]

    def select(self, rows: list[int]) -> Split:
        return Split(self[row] for row in rows)

    def __getitem__(self, key: Any) -> Any:
        return [row[key] for row in self] if isinstance(key, str) else super().__getitem__(key)


@pytest.fixture
def hub(monkeypatch) -> SimpleNamespace:
    """A package datasets that knows two data sets, and what was asked of it."""
    pictures = {
        "train": Split({"img": painted(RED), "label": n % 2} for n in range(8)),
        "test": Split({"img": painted(GREEN), "label": n} for n in (0, 2)),
    }
    words = {"train": Split({"text": t} for t in ("one", " ", "two"))}
    asked: list[Any] = []

    def load(name: str, subset: str | None, *, split: str | None, streaming: bool) -> Any:
        asked.append((name, subset, split, streaming))
        known = {"some/pictures": pictures, "some/words": words}
        if name not in known:
            raise ValueError("no such\n data set")
        return known[name] if split is None else known[name][split]

    module = ModuleType("datasets")
    module.load_dataset = load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    return SimpleNamespace(asked=asked)


def test_a_data_set_of_the_hub_keeps_its_own_test_split(hub):
    options = {"image": "img", "image_size": 4, "subset": "small"}
    found = load_dataset("some/pictures", 0, 0.5, None, options)
    assert (len(found.train), len(found.test), found.classes) == (8, 2, 3)
    assert found.test.tensors[0][0, :, 0, 0].tolist() == [0.0, 1.0, 0.0]
    assert hub.asked == [("some/pictures", "small", None, False)]
    with pytest.raises(InvalidValueError, match=r"no column 'image' .*has img, label"):
        load_dataset("some/pictures", options={"image_size": 4})
    with pytest.raises(OutputError, match="from 'some/thing': no such data set"):
        load_dataset("some/thing")


def test_texts_of_the_hub_come_as_documents_or_as_one(hub):
    assert [d.text for d in hub_texts("some/words", "train")] == ["one", "two"]
    (whole,) = hub_texts("some/words", "train", joined="\n\n")
    assert whole.text == "one\n\n \n\ntwo"
    assert hub.asked[0] == ("some/words", None, "train", True)


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'nodelens\[datasets\]'"):
        load_dataset("some/pictures")


def test_a_file_is_no_data_set_of_the_hub(tmp_path):
    (tmp_path / "text.txt").write_text("words")
    found = [is_hub_name(n) for n in (str(tmp_path), str(tmp_path / "text.txt"), "a/b", "digits")]
    assert found == [True, False, True, False]
