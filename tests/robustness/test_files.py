"""Saved files with any content: what was saved, or an error of ours; nothing in them is run."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nodelens import Aggregator, CompositeLens, Lens, LensResult, NodeLensError
from nodelens.checkpoint import Checkpoint
from nodelens.errors import OutputError
from nodelens.files import load_metadata, load_tensors, save_tensors, write_text

NAMES = ["rayleigh_quotient", "taylor_saliency", "synergy_gaussian_mmi", "activation_outlier_index"]
ODD = [None, True, 0, -1, 1.5, 10**30, "", "x", "nodelens.statistics.moments.Moments"]
JSON = st.recursive(
    st.sampled_from(ODD),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=3,
)


class Saved:
    """An aggregator and its result as bytes, in a folder where they may be overwritten."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        self.state, self.folder = folder / "state", folder / "result"
        self.about, self.scores = self.folder / "result.json", self.folder / "scores.safetensors"
        model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(27, 3))
        self.lens = CompositeLens([Lens.from_name(name) for name in NAMES])
        self.aggregator = self.lens.aggregator()
        batch = (torch.randn(9, 2, 4, 4), torch.arange(9) % 3)
        for statistics in self.lens.analyse_batched(model, [batch]):
            self.aggregator.update(statistics)
        self.aggregator.save(self.state)
        self.aggregator.result().save(self.folder)
        self.files = {p: p.read_bytes() for p in (self.state, self.about, self.scores)}

    def loads(self) -> list[Any]:
        """What loads; NodeLensErrors leave it out, anything else is raised."""
        found = []
        attempts = (
            lambda: Aggregator.load(self.state),
            lambda: Aggregator.load(self.state, lens=self.lens),
            lambda: LensResult.load(self.folder),
        )
        for attempt in attempts:
            try:
                found.append(attempt())
            except NodeLensError as error:
                assert 0 < len(str(error)) < 20_000
        for loaded in found:
            shown(loaded)
        return found


def shown(loaded: Aggregator | LensResult) -> None:
    """Use what was loaded in the ways that need no model."""
    if isinstance(loaded, Aggregator):
        assert loaded.batches >= 0 and loaded.rows >= 0
    else:
        assert repr(loaded) and loaded._repr_html_() and loaded.unit is not None


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Saved:
    return Saved(tmp_path_factory.mktemp("saved"))


@pytest.fixture(autouse=True)
def _whole_again(saved: Saved):
    yield
    for path, content in saved.files.items():
        path.write_bytes(content)


def header(content: bytes) -> int:
    """Where the tensors of a safetensors file begin, or the end of another file."""
    size = 8 + int.from_bytes(content[:8], "little")
    return size if size < len(content) else len(content)


@st.composite
def damage(draw: st.DrawFn) -> Any:
    """A function that flips bits of some bytes, mostly in the header, or cuts the file off."""
    kind = draw(st.sampled_from(["flip", "flip", "flip", "cut", "more", "zeros"]))
    places = draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=4))
    bits = draw(st.integers(1, 255))
    within = draw(st.sampled_from(["header", "header", "file"]))

    def damaged(content: bytes) -> bytes:
        end = header(content) if within == "header" else len(content)
        if kind == "cut":
            return content[: int(places[0] * end)]
        if kind == "more":
            return content + bytes(len(places))
        changed = bytearray(content)
        for place in places:
            at = int(place * end)
            changed[at] = 0 if kind == "zeros" else changed[at] ^ bits
        return bytes(changed)

    return damaged


def damage_one(saved: Saved, harm: Any, which: int) -> None:
    path = list(saved.files)[which]
    for other, content in saved.files.items():
        other.write_bytes(content if other != path else harm(content))
    saved.loads()


@settings(max_examples=25)
@given(harm=damage(), which=st.integers(0, 2))
def test_a_damaged_file_loads_or_is_an_error_of_ours(saved: Saved, harm: Any, which: int):
    damage_one(saved, harm, which)


@pytest.mark.slow
@settings(max_examples=800)
@given(harm=damage(), which=st.integers(0, 2))
def test_many_damaged_files_load_or_are_errors_of_ours(saved: Saved, harm: Any, which: int):
    damage_one(saved, harm, which)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in plain data, the whole first."""
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    return [path, *(found for key, part in inner for found in places(part, (*path, key)))]


@st.composite
def edits(draw: st.DrawFn) -> Any:
    """A function that puts any JSON in a place of plain data, or takes out what is there."""
    share, value = draw(st.floats(0, 1, exclude_max=True)), draw(JSON)
    remove = draw(st.booleans())

    def edited(data: Any) -> Any:
        data = json.loads(json.dumps(data))
        every = places(data)
        *outer, last = every[int(share * len(every))] or (None,)
        if last is None:
            return value
        part = data
        for key in outer:
            part = part[key]
        if remove:
            del part[last]
        else:
            part[last] = value
        return data

    return edited


def edit_both(saved: Saved, edit: Any) -> None:
    index, tensors = saved.aggregator.packed()
    save_tensors(saved.state, tensors, {"nodelens": json.dumps(edit(index))})
    saved.about.write_text(json.dumps(edit(json.loads(saved.files[saved.about]))))
    saved.loads()


@settings(max_examples=25)
@given(edit=edits())
def test_metadata_of_other_types_loads_or_is_an_error_of_ours(saved: Saved, edit: Any):
    edit_both(saved, edit)


@pytest.mark.slow
@settings(max_examples=600)
@given(edit=edits())
def test_much_metadata_of_other_types_loads_or_is_an_error_of_ours(saved: Saved, edit: Any):
    edit_both(saved, edit)


@pytest.mark.parametrize("at", [0.0, 0.5, 1.0])
def test_a_single_bit_of_a_state_s_numbers_is_noticed(saved: Saved, at: float):
    whole = bytearray(saved.files[saved.state])
    first = 8 + int.from_bytes(whole[:8], "little")
    whole[first + int(at * (len(whole) - 1 - first))] ^= 1
    saved.state.write_bytes(bytes(whole))
    with pytest.raises(
        OutputError, match=r"is damaged: the checksum .* is \w{12}, expected \w{12}"
    ):
        Aggregator.load(saved.state)


def test_a_file_of_others_has_no_checksum_and_loads(tmp_path: Path):
    from safetensors.torch import save_file

    save_file({"a": torch.arange(3)}, tmp_path / "s", {"b": "c"})
    tensors, about = load_tensors(tmp_path / "s")
    assert tensors["a"].tolist() == [0, 1, 2] and about == {"b": "c"}
    kinds = {"b": torch.tensor(True), "h": torch.ones(2, dtype=torch.bfloat16), "e": torch.empty(0)}
    save_tensors(tmp_path / "s", kinds, about)
    tensors, again = load_tensors(tmp_path / "s")
    assert again == about == load_metadata(tmp_path / "s")
    assert all(torch.equal(tensors[name], kinds[name]) for name in kinds)


def test_undamaged_files_load(saved: Saved):
    state, given_lens, result = saved.loads()
    assert state.batches == given_lens.batches == 1
    for layer, scores in result.items():
        for name, values in scores.items():
            assert torch.equal(state.result()[layer][name], values)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"format":' * 20_000, "1" * 5000, "null", "[]", ""]
)
def test_json_without_end_or_sense_is_an_error_of_ours(saved: Saved, text: str):
    save_tensors(saved.state, {}, {"nodelens": text})
    saved.about.write_text(text)
    assert saved.loads() == []


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_a_pickle_is_not_opened(saved: Saved, tmp_path: Path):
    mark = tmp_path / "ran"
    for content in (pickle.dumps(Evil(mark)), b""):
        for path in saved.files:
            path.write_bytes(content)
        torch.save(Evil(mark), saved.state)
        assert saved.loads() == []
    assert not mark.exists()


def test_a_state_imports_nothing_and_calls_no_constructor_but_of_lenses(saved: Saved):
    index, tensors = saved.aggregator.packed()
    for key, value in {
        "name": "os.system",
        "params": {"pattern": "("},
        "parts": [{"name": "subprocess.Popen", "params": {"args": "x"}}],
    }.items():
        other = {**index, "lens": {**index["lens"], key: value}}
        save_tensors(saved.state, tensors, {"nodelens": json.dumps(other)})
        if key == "params":
            assert Aggregator.load(saved.state).lens.spec() == saved.lens.spec()
            continue
        with pytest.raises(NodeLensError):
            Aggregator.load(saved.state)


@pytest.mark.parametrize("value", [[], "1", 1.0, None, -1, 10**30], ids=str)
@pytest.mark.parametrize("field", ["start", "groups", "rows"])
def test_what_is_no_count_is_noticed_before_it_is_scored(saved: Saved, field: str, value: Any):
    index, tensors = saved.aggregator.packed()
    index = json.loads(json.dumps(index))
    entries = [entry["plain"] for entry in index["entries"]]
    entries += [found["window"] for found in entries if found.get("window")]
    next(found for found in entries if field in found)[field] = value
    save_tensors(saved.state, tensors, {"nodelens": json.dumps(index)})
    with pytest.raises(OutputError, match=r"state' is damaged: ValueError: .* is no count"):
        Aggregator.load(saved.state)


def test_a_damaged_state_is_named_and_never_overwritten_by_a_resumed_run(saved: Saved):
    index, tensors = saved.aggregator.packed()
    del index["entries"][0]["kind"]
    save_tensors(saved.state, tensors, {"nodelens": json.dumps(index)})
    before = saved.state.read_bytes()
    with pytest.raises(OutputError, match=r"state' is damaged: KeyError: 'kind'") as caught:
        Checkpoint(saved.state).resume(Aggregator(saved.lens))
    assert isinstance(caught.value.__cause__, KeyError)
    assert saved.state.read_bytes() == before


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "\ud800"])
def test_a_name_that_no_file_can_have_is_an_error_of_ours(name: str, tmp_path: Path, saved: Saved):
    for attempt in (
        lambda: saved.aggregator.save(tmp_path / name),
        lambda: saved.aggregator.result().save(tmp_path / name),
        lambda: Aggregator.load(tmp_path / name),
        lambda: LensResult.load(tmp_path / name),
        lambda: write_text(tmp_path / "x", "\ud800" + name),
    ):
        with pytest.raises(OutputError):
            attempt()
    assert list(tmp_path.iterdir()) == []
