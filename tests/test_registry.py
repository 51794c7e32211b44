"""Lenses by name: aliases, taken names, reloaded notebooks, installed and broken plugins."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from nodelens import Lens, MetricLens, get_metric, list_metrics
from nodelens.errors import InvalidValueError, UnknownNameError, UnknownOptionError
from nodelens.registry import LENSES, Registry

CELL = """
from nodelens import Lens, MetricLens

@Lens.register("notebook.lens", aliases=("nb",))
class NotebookLens(MetricLens):
    version = {version}

    def reads(self, layer):
        return {{}}

    def score(self, statistics, layer):
        return None
"""


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Puts the registry back as it was."""
    LENSES.discover()
    classes, aliases = dict(LENSES._classes), dict(LENSES._aliases)
    yield
    LENSES._classes.clear()
    LENSES._classes.update(classes)
    LENSES._aliases.clear()
    LENSES._aliases.update(aliases)


class Plain(MetricLens):
    def __init__(self, pattern: str | None = None, *, width: int = 3) -> None:
        super().__init__(pattern)
        self.width = width

    def reads(self, layer: Any) -> dict[str, Any]:
        return {}

    def score(self, statistics: Any, layer: Any) -> Any:
        return None


def run_cell(version: int) -> type[Lens]:
    """Run a notebook cell that defines a lens, and return the class it made."""
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec(CELL.format(version=version), scope)
    return scope["NotebookLens"]


def test_a_lens_is_found_by_name_and_alias(forgotten):
    Lens.register("plain", aliases=("simple", "bare"))(Plain)
    assert Plain.name == "plain"
    assert type(Lens.from_name("plain")) is type(Lens.from_name("bare")) is Plain
    assert Lens.from_name("simple", "fc.*", width=5).params == {"pattern": "fc.*", "width": 5}
    assert Lens.aliases("plain") == ["bare", "simple"]


def test_names_are_sorted_and_hold_no_alias(forgotten):
    Lens.register("plain", aliases=("simple",))(Plain)
    names = Lens.names()
    assert names == sorted(names) and "plain" in names and "simple" not in names
    assert "composite" not in names


def test_an_unknown_name_is_a_key_error_with_the_nearest_name():
    with pytest.raises(KeyError) as failure:
        Lens.from_name("rayleigh_quotent")
    assert isinstance(failure.value, UnknownNameError)
    message = str(failure.value)
    assert message == (
        "unknown lens 'rayleigh_quotent' (did you mean 'rayleigh_quotient'?);"
        f" `nodelens lenses` lists all {len(Lens.names())}"
    )


@pytest.mark.parametrize(
    ("slip", "meant"), [("RQs", "RQ"), ("redundancy_gausian", "redundancy_gaussian")]
)
def test_the_nearest_name_may_be_an_alias(slip, meant):
    with pytest.raises(UnknownNameError, match=f"did you mean '{meant}'"):
        Lens.from_name(slip)


def test_an_unknown_option_is_a_type_error_with_the_nearest_option():
    with pytest.raises(TypeError) as failure:
        Lens.from_name("rayleigh_quotient", regularisation=1e-3)
    assert isinstance(failure.value, UnknownOptionError)
    assert str(failure.value) == (
        "lens 'rayleigh_quotient' has no option 'regularisation' (did you mean 'regularization'?); "
        "it has pattern, layers, relative, regularization, spatial"
    )


@pytest.mark.parametrize("taken", ["rayleigh_quotient", "rq"])
@pytest.mark.parametrize("as_alias", [False, True])
def test_a_taken_name_is_a_value_error_that_names_both_classes(forgotten, taken, as_alias):
    decorate = Lens.register("plain", aliases=(taken,)) if as_alias else Lens.register(taken)
    with pytest.raises(ValueError, match=f"'{taken}' is taken by .*RayleighQuotient.*Plain"):
        decorate(Plain)
    assert "plain" not in Lens.names()
    assert Lens.from_name(taken).name == "rayleigh_quotient"
    assert Plain.name != taken


def test_the_clash_is_found_when_the_decorator_is_applied_not_when_made():
    Lens.register("rayleigh_quotient")


def test_a_cell_that_is_run_again_replaces_its_lens(forgotten):
    first, second = run_cell(1), run_cell(2)
    assert first is not second
    assert type(Lens.from_name("nb")) is second and Lens.from_name("notebook.lens").version == 2


def test_a_cell_with_another_alias_keeps_the_old_one_working(forgotten):
    run_cell(1)
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec(CELL.format(version=2).replace('"nb"', '"nb2"'), scope)
    assert Lens.from_name("nb2").version == 2
    assert Lens.from_name("nb").version == 2


def test_a_cell_may_make_the_alias_the_name(forgotten):
    run_cell(1)
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec(CELL.format(version=2).replace('"notebook.lens", aliases=("nb",)', '"nb"'), scope)
    assert Lens.from_name("nb").version == 2
    run_cell(3)
    assert Lens.from_name("nb").version == 3 and "nb" not in Lens.names()


def test_an_alias_cannot_take_a_name_nor_a_name_an_alias(forgotten):
    Lens.register("plain", aliases=("simple",))(Plain)
    other = type("Other", (Plain,), {})
    for name, aliases in (("simple", ()), ("other", ("plain",)), ("other", ("simple",))):
        with pytest.raises(InvalidValueError, match="is taken by"):
            Lens.register(name, aliases=aliases)(other)


def test_one_class_may_have_two_names(forgotten):
    registry: Registry[Any] = Registry("thing")
    registry.add("one", Plain)
    registry.add("two", Plain)
    assert registry.get("one") is registry.get("two") is Plain


def test_a_subclass_goes_by_its_own_name_until_it_is_registered(forgotten):
    class Mine(Lens.named("weight_magnitude")):
        pass

    result = Mine().analyse(nn.Linear(3, 2))
    assert (result.lens, result.score_names) == ("Mine", ["Mine"])
    assert Lens.register("mine.size")(Mine).name == "mine.size"
    assert Lens.named("weight_magnitude").name == "weight_magnitude"


def test_an_empty_registry_says_so():
    with pytest.raises(UnknownNameError, match="unknown thing 'x'; there are none"):
        Registry("thing").get("x")


def test_metrics_are_the_metric_lenses_of_the_one_registry():
    assert set(list_metrics()) < set(Lens.names())
    assert "ablation" not in list_metrics() and "rayleigh_quotient" in list_metrics()
    assert get_metric("rq", relative=False).params["relative"] is False
    with pytest.raises(UnknownNameError, match="lens 'ablation' is not a metric; the metrics are"):
        get_metric("ablation", channels={"fc": [0]})


GOOD = """
    from nodelens import Lens
    from nodelens_lenses.activation import ActivationMean

    print("imported good")

    @Lens.register("good.mean")
    class GoodMean(ActivationMean):
        pass
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with three installed plugins: one sound, one that fails, one that is not there."""
    plugins = {
        "good": ("good_plugin", GOOD),
        "broken": ("broken_plugin", "raise RuntimeError('no licence file')"),
        "exits": ("exiting_plugin", "import sys; sys.exit('bye')"),
        "missing": ("missing_plugin", None),
        "partial": ("good_plugin:NoSuchName", None),
    }
    for name, (target, code) in plugins.items():
        module = target.partition(":")[0]
        if code is not None:
            (tmp_path / f"{module}.py").write_text(textwrap.dedent(code))
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[nodelens.lenses]\n{name} = {target}\n")
    return tmp_path


def python(site: Path, code: str) -> str:
    """Output of a fresh interpreter with `site` on its path."""
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        env={"PYTHONPATH": f"{site}:{root}:{root / 'lenses'}", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_plugins_are_imported_late_and_once_and_broken_ones_break_nothing(site):
    output = python(
        site,
        """
        import sys
        import nodelens
        from nodelens import Lens
        heavy = ("nnsight", "transformers", "pandas", "matplotlib", "nodelens_lenses")
        print([name for name in heavy if name in sys.modules])
        import nodelens_lenses
        print("good_plugin" in sys.modules)
        Lens.from_name("rayleigh_quotient")
        print("good_plugin" in sys.modules)
        print(type(Lens.from_name("good.mean")).__module__)
        print("rayleigh_quotient" in Lens.names(), "good.mean" in Lens.names())
        try:
            Lens.from_name("broken.lens")
        except KeyError as error:
            print(error)
        print("nnsight" in sys.modules)
        """,
    ).splitlines()
    assert output[:3] == ["[]", "False", "False"]
    assert output[3:6] == ["imported good", "good_plugin", "True True"]
    message = output[6]
    assert "unknown lens 'broken.lens'" in message
    assert "Plugins that failed to import: " in message
    assert "broken (RuntimeError: no licence file)" in message
    assert "missing (ModuleNotFoundError: No module named 'missing_plugin')" in message
    assert "partial (AttributeError" in message
    assert "exits (SystemExit: bye)" in message
    assert output[7:] == ["False"]


@pytest.mark.slow
def test_a_name_is_taken_also_before_its_plugin_was_imported(site):
    output = python(
        site,
        """
        from nodelens import Lens
        class Mine(Lens):
            def _intervene(self, model, **kwargs): ...
        try:
            Lens.register("rayleigh_quotient")(Mine)
        except ValueError as error:
            print(error)
        print(Lens.named("rayleigh_quotient").__name__)
        """,
    ).splitlines()
    assert output[1:] == [
        "the lens name 'rayleigh_quotient' is taken by "
        "nodelens_lenses.alignment.RayleighQuotient; expected another name for __main__.Mine",
        "RayleighQuotient",
    ]
