"""The probe of a strategy says what silencing its masks costs; the model stays as it is."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from nodelens import Lens
from nodelens.errors import InvalidValueError, SharedDataWarning
from nodelens.interventions import evaluate
from nodelens.pruning import get_pruning_strategy, list_pruning_strategies
from nodelens.pruning.sensitivity import evaluate_masks, measure_sensitivity
from nodelens.registry import LENSES
from nodelens.testing.subjects import SUBJECTS, rows_of

CONVOLUTIONAL = SUBJECTS[0]
NOTE = "scores and losses are from the same data: give calibration= batches of their own"


def parts(subject, *ends):
    batch = subject.batch(20)
    return [rows_of(batch, slice(a, b)) for a, b in zip((0, *ends), (*ends, 20), strict=True)]


@pytest.mark.parametrize("name", list_pruning_strategies())
def test_every_strategy_has_a_probe(name):
    lens = Lens.named(f"prune_{name}")
    assert lens.name == f"prune_{name}" and issubclass(lens, Lens) and lens.edits
    assert lens is Lens.named(f"prune_{name}")


def test_probes_are_made_when_asked_for_and_not_listed():
    assert "prune_" in LENSES.families()
    assert not [name for name in Lens.names() if name.startswith("prune_")]
    with pytest.raises(KeyError, match=r"strategy 'magnitud' \(did you mean 'magnitude'\?\)"):
        Lens.from_name("prune_magnitud")


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda s: s.name)
@pytest.mark.parametrize("name", ["magnitude", "random", "taylor", "rayleigh_quotient"])
def test_the_probe_says_what_evaluating_the_masks_says(subject, name):
    model, calibration = subject.model(), parts(subject, 4, 9)[:2]
    batches = parts(subject, 9, 13)[1:]
    amounts = [0.0, 0.3, 0.6]
    lens = Lens.from_name(f"prune_{name}", amounts=amounts)
    result = lens.run(model, batches, progress=False, calibration=calibration)
    scores, strategy = result["model"], get_pruning_strategy(name)
    measured = strategy.scores(model, calibration)
    dense = evaluate(model, batches)
    assert scores["loss"].tolist() == pytest.approx([dense.loss])
    for i, amount in enumerate(amounts):
        masks = strategy.masks(model, measured, amount)
        pruned = evaluate_masks(model, batches, masks)
        assert float(scores["loss_pruned"][i]) == pytest.approx(pruned.loss)
        assert float(scores["accuracy_pruned"][i]) == pytest.approx(pruned.accuracy)
        gone = sum(int((~m).sum()) for m in masks.values()) / sum(len(m) for m in masks.values())
        assert float(scores["removed"][i]) == pytest.approx(gone)
    assert float(scores["loss_change"][0]) == 0 and result.notes == []


def test_scores_are_measured_once_for_all_amounts(monkeypatch):
    kind, calls = type(get_pruning_strategy("taylor")), []
    plain = kind.scores
    monkeypatch.setattr(kind, "scores", lambda *a, **k: (calls.append(1), plain(*a, **k))[1])
    lens = Lens.from_name("prune_taylor", amounts=[0.1, 0.5, 0.9])
    result = lens.run(CONVOLUTIONAL.model(), parts(CONVOLUTIONAL, 4, 12), progress=False)
    assert len(calls) == 1 and result.notes == [NOTE]


def test_a_run_without_calibration_scores_on_all_its_batches():
    model, batches = CONVOLUTIONAL.model(), parts(CONVOLUTIONAL, 4, 12)
    lens = Lens.from_name("prune_taylor", amount=0.5)
    same = lens.run(model, batches, progress=False)
    with pytest.warns(SharedDataWarning, match="were scored on too: give calibration="):
        given = lens.run(model, batches, progress=False, calibration=batches)
    assert len(given.notes) == 1 and same.notes == [NOTE]
    assert torch.equal(same["model"]["loss_pruned"], given["model"]["loss_pruned"])
    with pytest.raises(InvalidValueError, match=r"lens 'prune_taylor': .* give calibration="):
        lens.run(model, iter(batches), progress=False)
    Lens.from_name("prune_magnitude").run(model, iter(batches), progress=False)


def test_shared_rows_are_told_once_and_none_where_no_data_is_scored_on():
    model, batches = CONVOLUTIONAL.model(), parts(CONVOLUTIONAL, 4, 12)
    first, *others = batches
    shared = [first, others[0], (others[1][0][2:3], others[1][1][2:3])]
    lens = Lens.from_name("prune_taylor", amount=0.5)
    with pytest.warns(SharedDataWarning) as told:
        notes = lens.run(model, others, progress=False, calibration=shared).notes
    assert len(told) == len(notes) == 1
    assert lens.run(model, others, progress=False, calibration=[first]).notes == []
    once = lens.run(model, others, progress=False, calibration=iter(shared))
    assert "read once only" in once.notes[0]
    plain = Lens.from_name("prune_magnitude")
    assert plain.run(model, others, progress=False, calibration=others).notes == []


def test_protected_and_named_layers_are_the_probes_too():
    model, batch = CONVOLUTIONAL.model(), CONVOLUTIONAL.batch(20)
    lens = Lens.from_name("prune_magnitude", layers="state", protected={"state": range(5)})
    with pytest.raises(InvalidValueError, match="is 4 of 8 units, and the layers can lose 3 at mo"):
        lens.analyse(model, batch)
    high = Lens.from_name("prune_magnitude", "state|twice", pruning_mode="high", min_keep=3)
    assert high.analyse(model, batch)["model"]["removed"].tolist() == [0.5]


def test_sensitivity_is_the_loss_change_of_each_layer_alone():
    model, batches = CONVOLUTIONAL.model(), parts(CONVOLUTIONAL, 9)
    strategy = get_pruning_strategy("adaptive_sensitivity", amount=0.4)
    scores = strategy.scores(model, batches)
    felt = measure_sensitivity(model, scores, batches, amount=0.5)
    lowest = scores["state"].argsort(stable=True)[:4]
    alone = evaluate(model, batches, {"state": lowest}).loss - evaluate(model, batches).loss
    assert felt["state"] == pytest.approx(alone)
    lens = Lens.from_name("prune_adaptive_sensitivity", amount=0.4)
    removed = lens.run(model, batches, progress=False)["model"]["removed"]
    assert removed.tolist() == pytest.approx([14 / 36])


def test_an_error_names_the_lens_and_the_batch():
    model, (inputs, targets) = CONVOLUTIONAL.model(), CONVOLUTIONAL.batch(20)
    batches = [(inputs, targets), (inputs, targets + 99)]
    scored = [(inputs[:7] + 1, targets[:7])]
    with pytest.raises(ValueError, match=r"lens 'prune_taylor', batch 1: class number 10\d"):
        Lens.from_name("prune_taylor").run(model, batches, progress=False, calibration=scored)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"amount": 1.0}, "amount is 1.0"),
        ({"amounts": []}, "amounts is empty"),
        ({"nm": (2, 4), "structured": False, "amounts": [0.5]}, "nm is .2, 4., which sets"),
        ({"nm": (2, 4)}, "nm masks single weights"),
        ({"pruning_mode": "hgh"}, "did you mean 'high'"),
        ({"distribution": "unform"}, "did you mean 'uniform'"),
    ],
)
def test_options_that_will_not_do_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        Lens.from_name("prune_magnitude", **options)


def test_language_models_give_perplexity():
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=31,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    tokens = torch.randint(0, 31, (3, 9), generator=torch.Generator().manual_seed(0))
    for name in ("magnitude", "supernode_connectivity", "scar_loss_proxy", "two_halo"):
        result = Lens.from_name(f"prune_{name}", amounts=[0.25, 0.5]).analyse(model, tokens)
        scores = result["model"]
        assert result.rows == {"model": 3 * 8}
        assert any("9 tokens in the first, float32" in note for note in result.notes)
        assert "accuracy" not in scores
        torch.testing.assert_close(scores["perplexity_pruned"], scores["loss_pruned"].exp())
        assert scores["removed"].tolist() == [0.25, 0.5]
    found = get_pruning_strategy("magnitude").scores(model, [tokens])
    assert list(found) == [f"model.layers.{i}.mlp.down_proj" for i in range(2)]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("magnitude", {"structured": False, "amounts": [0.0, 0.5]}),
        ("wanda", {"structured": False, "amount": 0.5}),
        ("ria", {"nm": (2, 4), "structured": False, "layers": ["state", "twice"]}),
    ],
)
def test_single_weights_are_probed_as_a_copy_without_them(name, options):
    model, batches = CONVOLUTIONAL.model(), parts(CONVOLUTIONAL, 9)
    before = deepcopy(model.state_dict())
    lens = Lens.from_name(f"prune_{name}", **options)
    scores = lens.run(model, batches, progress=False)["model"]
    made = {k: v for k, v in options.items() if k in ("structured", "nm")}
    strategy = get_pruning_strategy(name, **made)
    masks = strategy.masks(
        model, strategy.scores(model, batches, layers=options.get("layers")), 0.5
    )
    copy = deepcopy(model)
    for layer, keep in masks.items():
        copy.get_submodule(layer).weight.data[~keep] = 0
    assert float(scores["loss_pruned"][-1]) == pytest.approx(evaluate(copy, batches).loss)
    assert scores["removed"][-1] == pytest.approx(0.5, abs=0.02)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
