"""Statistics that are saved, loaded, merged, interrupted and gone on with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from nodelens import Aggregator, CompositeLens, Lens
from nodelens.errors import InvalidValueError, MergeError, OutputError, ShapeError, UnknownNameError
from nodelens.files import save_tensors
from nodelens.statistics import Mean, Statistic
from nodelens.statistics.moments import CentralMoments
from nodelens.testing.subjects import SUBJECTS, rows_of
from nodelens.testing.trial import aggregated, assert_close, assert_equal

IMAGES = SUBJECTS[0]
NAMES = ["rayleigh_quotient", "taylor_saliency", "synergy_gaussian_mmi", "activation_outlier_index"]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def lens() -> Lens:
    return CompositeLens([Lens.from_name(name) for name in NAMES])


def batches(number: int = 6, rows: int = 3) -> list[Any]:
    batch = IMAGES.batch(number * rows)
    return [rows_of(batch, slice(i * rows, (i + 1) * rows)) for i in range(number)]


def run(given: Any, **options: Any) -> Any:
    return lens().run(IMAGES.model(), given, progress=False, **options)


def stopping(given: list[Any], after: int, error: type[BaseException]) -> Iterator[Any]:
    yield from given[:after]
    raise error("stopped")


def test_the_readme_loop_gives_what_run_gives():
    made, model = lens(), IMAGES.model()
    aggregator = made.aggregator()
    for statistics in made.analyse_batched(model, batches()):
        aggregator.update(statistics)
    assert_equal(aggregator.result(), run(batches()))
    assert (aggregator.batches, aggregator.rows) == (6, 18 * 7 * 6)
    assert aggregator.result().rows["head"] == 18


def test_updating_leaves_the_statistics_of_the_batch_as_they_were():
    made = Lens.from_name("activation_mean")
    first, second = made.analyse_batched(IMAGES.model(), batches(2))
    aggregator = aggregated(made, [first, second, second])
    again = aggregated(made, [first, second, second])
    assert_equal(aggregator.result(), again.result())


def test_merging_shards_gives_the_whole():
    made, found = lens(), list(lens().analyse_batched(IMAGES.model(), batches()))
    whole = aggregated(made, found)
    left, right = aggregated(made, found[:1]), aggregated(lens(), found[1:])
    left.merge(right)
    assert_close(left.result(), whole.result(), 1e-6)
    assert (left.batches, left.rows) == (whole.batches, whole.rows)
    right.merge(made.aggregator())
    assert right.batches == 5


def test_an_empty_aggregator_has_no_result():
    with pytest.raises(InvalidValueError, match="lens 'activation_mean' has seen no batch yet"):
        Lens.from_name("activation_mean").aggregator().result()
    with pytest.raises(InvalidValueError, match="has seen no batch yet"):
        run([])


def test_other_lenses_and_options_are_not_merged():
    mean = Lens.from_name("activation_mean").aggregator()
    for other in (
        Lens.from_name("activation_max"),
        Lens.from_name("activation_mean", site="input"),
    ):
        with pytest.raises(MergeError, match=r"cannot merge Activation.* into ActivationMean"):
            mean.merge(other.aggregator())


def test_other_weights_are_not_merged_and_the_layer_is_named():
    made, model = Lens.from_name("weight_magnitude"), IMAGES.model()
    aggregator = aggregated(made, list(made.analyse_batched(model, batches(1))))
    with torch.no_grad():
        model.head.weight.add_(1)
    with pytest.raises(MergeError, match=r"batch 1, layer 'head': RowNorms .*differ"):
        for statistics in made.analyse_batched(model, batches(1)):
            aggregator.update(statistics)


def test_a_state_is_one_safetensors_file_of_plain_data(tmp_path: Path):
    aggregator = aggregated(lens(), list(lens().analyse_batched(IMAGES.model(), batches(2))))
    path = tmp_path / "deep" / "state.safetensors"
    aggregator.save(path)
    with safe_open(path, framework="pt") as file:
        index = json.loads(json.loads(file.metadata()["content"])["nodelens"])
    assert index["format"] == 1 and index["batches"] == 2
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert_equal(Aggregator.load(path).result(), aggregator.result())
    assert_equal(Aggregator.load(path, lens=lens()).result(), aggregator.result())


def test_scores_need_no_model_and_formulas_can_be_changed_later(tmp_path: Path):
    made = Lens.from_name("pairwise_redundancy_gaussian")
    aggregated(made, list(made.analyse_batched(IMAGES.model(), batches()))).save(tmp_path / "s")
    loaded = Aggregator.load(tmp_path / "s")
    loaded.lens = Lens.from_name("pairwise_redundancy_gaussian", partners="nearest", k=1)
    nearest = loaded.result()["head"]["pairwise_redundancy_gaussian"]
    assert torch.all(nearest >= run(batches())["head"]["rayleigh_quotient"] * 0)
    assert_equal(loaded.result(), loaded.lens.run(IMAGES.model(), batches(), progress=False))


def test_a_file_of_another_lens_is_refused(tmp_path: Path):
    made = Lens.from_name("activation_mean")
    aggregated(made, list(made.analyse_batched(IMAGES.model(), batches(1)))).save(tmp_path / "s")
    with pytest.raises(MergeError, match=r"was measured by .*activation_mean.*, not by Activation"):
        Aggregator.load(tmp_path / "s", lens=Lens.from_name("activation_max"))
    with pytest.raises(MergeError, match="was measured by"):
        run(batches(), resume=tmp_path / "s")


@pytest.mark.parametrize("layers", [("stem", "head"), ["stem", "head"], "stem", None])
def test_options_written_in_another_way_are_the_same_lens(tmp_path: Path, layers: Any):
    def made() -> Lens:
        return CompositeLens([Lens.from_name("activation_mean", layers=layers)])

    first = made().run(IMAGES.model(), batches(2), progress=False, resume=tmp_path / "s")
    again = made().run(IMAGES.model(), batches(2), progress=False, resume=tmp_path / "s")
    assert_equal(again, first)
    Aggregator.load(tmp_path / "s", lens=made()).merge(Aggregator.load(tmp_path / "s"))


@pytest.mark.parametrize("content", [b"", b"no tensors", b"\xff" * 64])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "s"
    path.write_bytes(content)
    with pytest.raises(OutputError, match="cannot read"):
        Aggregator.load(path)
    with pytest.raises(OutputError, match="cannot read"):
        Aggregator.load(tmp_path / "nowhere")


def test_tensors_of_something_else_are_refused(tmp_path: Path):
    save_tensors(tmp_path / "s", {"x": torch.ones(2)})
    with pytest.raises(OutputError, match="holds no aggregator"):
        Aggregator.load(tmp_path / "s")
    save_tensors(tmp_path / "s", {}, {"nodelens": json.dumps({"format": 99})})
    with pytest.raises(OutputError, match="has format 99, expected 1"):
        Aggregator.load(tmp_path / "s")


def test_a_file_imports_nothing(tmp_path: Path):
    made = Lens.from_name("activation_mean")
    aggregator = aggregated(made, list(made.analyse_batched(IMAGES.model(), batches(1))))
    index, tensors = aggregator.packed()
    for entry in index["entries"]:
        entry["kind"] = "os.system"
    save_tensors(tmp_path / "s", tensors, {"nodelens": json.dumps(index)})
    with pytest.raises(UnknownNameError, match=r"unknown statistic 'os\.system'"):
        Aggregator.load(tmp_path / "s")


def test_a_lens_with_options_that_are_no_plain_data_is_given_when_loading(tmp_path: Path):
    channels = {"head": torch.tensor([0, 1])}
    made = Lens.from_name("ablation", channels=channels)
    aggregator = aggregated(made, list(made.analyse_batched(IMAGES.model(), batches(2))))
    aggregator.save(tmp_path / "s")
    with pytest.raises(InvalidValueError, match="lens 'ablation' had options that cannot be saved"):
        Aggregator.load(tmp_path / "s")
    assert_equal(Aggregator.load(tmp_path / "s", lens=made).result(), aggregator.result())


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
@pytest.mark.parametrize("after", [1, 4])
def test_an_interrupted_run_goes_on_to_the_identical_result(tmp_path: Path, error, after):
    path = tmp_path / "state.safetensors"
    with pytest.raises(error, match="stopped"):
        run(stopping(batches(), after, error), resume=path, save_every=2)
    assert Aggregator.load(path).batches == after
    drawn: list[int] = []

    def watched() -> Iterator[Any]:
        for number, batch in enumerate(batches()):
            drawn.append(number)
            yield batch

    assert_equal(run(watched(), resume=path), run(batches()))
    assert drawn == list(range(6))
    assert Aggregator.load(path).batches == 6


def test_an_interrupt_inside_a_batch_counts_that_batch_not_at_all(tmp_path: Path):
    path, model = tmp_path / "state", IMAGES.model()
    calls = 0

    def interrupt(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt

    run(batches(), resume=None)
    hook = model.output.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        lens().run(model, batches(), progress=False, resume=path)
    hook.remove()
    done = Aggregator.load(path).batches
    assert 0 < done < 4
    assert_equal(lens().run(model, batches(), progress=False, resume=path), run(batches()))


def test_an_interrupt_while_a_batch_is_merged_saves_nothing_by_halves(tmp_path: Path, monkeypatch):
    path, model, straight = tmp_path / "state", IMAGES.model(), run(batches())
    calls, merge = 0, CentralMoments.merge

    def interrupt(self: CentralMoments, other: CentralMoments) -> None:
        nonlocal calls
        calls += 1
        # In the fourth batch, when some layers have been merged and others have not.
        if calls == 40:
            raise KeyboardInterrupt
        merge(self, other)

    monkeypatch.setattr(CentralMoments, "merge", interrupt)
    with pytest.raises(KeyboardInterrupt):
        lens().run(model, batches(), progress=False, resume=path, save_every=1)
    monkeypatch.undo()
    assert Aggregator.load(path).batches == 3
    assert_equal(lens().run(model, batches(), progress=False, resume=path), straight)


def test_a_batch_that_cannot_be_merged_is_not_saved_by_halves(tmp_path: Path):
    names = ("rayleigh_quotient", "mutual_information_gaussian")
    made, path = CompositeLens([Lens.from_name(name) for name in names]), tmp_path / "state"
    sound = [(inputs, inputs.flatten(1)[:, :2]) for inputs, _ in batches()]
    broken = [*sound[:3], (sound[3][0], sound[3][1][:, :1])]
    with pytest.raises(ShapeError, match="batch 3, layer 'stem': targets have 2 dim"):
        made.run(IMAGES.model(), broken, progress=False, resume=path, save_every=2)
    assert Aggregator.load(path).batches == 2
    expected = made.run(IMAGES.model(), sound, progress=False)
    assert_equal(made.run(IMAGES.model(), sound, progress=False, resume=path), expected)


def test_a_run_that_is_done_is_not_done_again(tmp_path: Path):
    first = run(batches(), resume=tmp_path / "state")
    seen: list[tuple[int, int]] = []
    again = lens().run(
        IMAGES.model(), batches(), progress=lambda *at: seen.append(at), resume=tmp_path / "state"
    )
    assert_equal(again, first)
    assert seen == []


def test_an_interrupt_before_the_first_batch_leaves_no_file(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        run(stopping(batches(), 0, KeyboardInterrupt), resume=tmp_path / "state")
    assert not list(tmp_path.iterdir())


def test_a_bad_batch_in_the_middle_is_named_and_what_came_before_is_kept(tmp_path: Path):
    given = batches()
    given[3][0][0] = torch.nan
    with pytest.raises(ValueError, match=r"lens 'composite_lens', batch 3: layer 'stem': \d+ NaN"):
        run(given, resume=tmp_path / "state")
    assert_equal(run(batches(), resume=tmp_path / "state"), run(batches()))


def test_a_batch_keeps_its_number_when_a_run_goes_on(tmp_path: Path):
    given = batches()
    with pytest.raises(KeyboardInterrupt):
        run(stopping(given, 2, KeyboardInterrupt), resume=tmp_path / "state")
    given[4][0][0] = torch.inf
    message = r"lens 'composite_lens', batch 4: layer 'stem': .* infinite"
    with pytest.raises(ValueError, match=message):
        run(given, resume=tmp_path / "state")


def test_progress_is_told_batches_and_rows(tmp_path: Path):
    seen: list[tuple[int, int]] = []
    made = Lens.from_name("activation_mean", layers=["head"])
    made.run(IMAGES.model(), batches(3), progress=lambda *at: seen.append(at))
    assert seen == [(1, 3), (2, 6), (3, 9)]
    seen.clear()
    path = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        made.run(
            IMAGES.model(), stopping(batches(3), 2, KeyboardInterrupt), progress=False, resume=path
        )
    made.run(IMAGES.model(), batches(3), progress=lambda *at: seen.append(at), resume=path)
    assert seen == [(3, 9)]


def test_the_bar_is_for_terminals_and_says_nothing_elsewhere(capsys, monkeypatch):
    made = Lens.from_name("activation_mean", layers=["head"])
    made.run(IMAGES.model(), batches(2))
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    made.run(IMAGES.model(), batches(2))
    said = capsys.readouterr()
    assert said.out == "" and "measuring" in said.err


def test_an_unwritable_place_is_an_error_of_ours(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        run(batches(1), resume=tmp_path / "file" / "state")


def test_gathering_without_other_ranks_gives_a_copy():
    made = lens()
    aggregator = aggregated(made, list(made.analyse_batched(IMAGES.model(), batches(2))))
    gathered = aggregator.gather()
    assert gathered is not aggregator and gathered.batches == 2
    assert_equal(gathered.result(), aggregator.result())
    for found in gathered.statistics.values():
        for statistic in found.values():
            if isinstance(statistic, Mean):
                statistic.total.zero_()
    assert_equal(aggregator.gather().result(), aggregator.result())


def test_a_saved_statistic_of_a_strangers_lens_comes_back(tmp_path: Path):
    made = Lens.from_name("activation_mean")
    aggregator = aggregated(made, list(made.analyse_batched(IMAGES.model(), batches(1))))
    aggregator.save(tmp_path / "s")
    loaded = Aggregator.load(tmp_path / "s")
    kinds = {type(s).__name__ for found in loaded.statistics.values() for s in found.values()}
    assert kinds == {"Layer", "AbsoluteMean"}
    assert all(isinstance(s, Statistic) for f in loaded.statistics.values() for s in f.values())
