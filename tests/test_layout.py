"""Who may import whom, read off the syntax tree; imports inside functions count too."""

from __future__ import annotations

import ast
import graphlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Each layer imports from the layers above it, and without a circle from its own.
LAYERS = [
    ["described", "errors", "figures", "files", "memory", "notebook", "options", "progress"],
    ["statistics", "model", "data", "registry", "tracking"],
    ["aggregator", "checkpoint", "result", "settled", "jackknife", "followers", "hosted", "stream"],
    ["lens"],
    ["reading"],
    ["plan"],
    ["composite"],
    ["metrics", "interventions"],
    ["pruning", "analysis"],
    ["configs"],
    ["experiments", "report"],
    ["testing", "cli"],
    ["__init__", "__main__"],
]
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
NNSIGHT_HOMES = ("nodelens/model/", "nodelens/lens.py")
LENS_MAY_IMPORT = {"nodelens", "nodelens_lenses", "torch", "math", *sys.stdlib_module_names}


@dataclass(frozen=True)
class Source:
    """A parsed file: `path` from the project root, `package` the dotted package it stands in."""

    path: str
    tree: ast.Module

    @property
    def package(self) -> str:
        return ".".join(Path(self.path.removeprefix("lenses/")).parent.parts)

    @property
    def part(self) -> str:
        """The part of the core that the file belongs to, as named in `LAYERS`."""
        return Path(self.path).parts[1].removesuffix(".py")

    def imports(self) -> Iterator[tuple[int, str, str]]:
        """Line, absolute module and name (or an empty string) of every import that runs."""
        for node in running(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield node.lineno, alias.name, ""
            elif isinstance(node, ast.ImportFrom):
                above = self.package.split(".")[: -node.level + 1 or None] if node.level else []
                module = ".".join([*above, *([node.module] if node.module else [])])
                for alias in node.names:
                    yield node.lineno, module, alias.name

    def at(self, line: int, fact: str) -> str:
        return f"{self.path}:{line}: {fact}"


def running(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under `if TYPE_CHECKING`, which never run."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield from running(child)


def planted(path: str, text: str) -> Source:
    return Source(path, ast.parse(text))


def sources(*folders: str) -> list[Source]:
    files = sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))
    return [planted(file.relative_to(ROOT).as_posix(), file.read_text("utf-8")) for file in files]


CORE = sources("nodelens")
LENSES = sources("lenses/nodelens_lenses")


def imported_part(module: str, name: str) -> str | None:
    """The part of the core that an import reaches; `None` for anything outside."""
    parts = module.split(".")
    if parts[0] != "nodelens":
        return None
    if len(parts) > 1:
        return parts[1]
    # `from nodelens import lens` is a module, `from nodelens import Lens` the package's face.
    return name if name in RANK or name.startswith("__") else "__init__"


def upward_imports(core: list[Source]) -> list[str]:
    return [
        source.at(line, f"{source.part} imports {part}, which is not below it")
        for source in core
        for line, module, name in source.imports()
        if (part := imported_part(module, name)) is not None
        and RANK.get(part, -1) > RANK.get(source.part, len(RANK))
    ]


def unplaced_parts(core: list[Source]) -> list[str]:
    return sorted({source.part for source in core} - set(RANK))


def circles(core: list[Source]) -> list[str]:
    """Circles among the parts of one layer; across layers an upward import is found first."""
    reached: dict[str, set[str]] = {}
    for source in core:
        for _, module, name in source.imports():
            part = imported_part(module, name)
            if part in RANK and part != source.part and RANK[part] == RANK.get(source.part):
                reached.setdefault(source.part, set()).add(part)
    try:
        graphlib.TopologicalSorter(reached).prepare()
    except graphlib.CycleError as error:
        return [" -> ".join(error.args[1])]
    return []


def built_in_lenses_in_the_core(core: list[Source]) -> list[str]:
    return [
        source.at(line, f"the core imports {module}")
        for source in core
        for line, module, _ in source.imports()
        if module.split(".")[0] == "nodelens_lenses"
    ]


def nnsight_outside_its_homes(all_sources: list[Source]) -> list[str]:
    return [
        source.at(line, f"imports {module}")
        for source in all_sources
        for line, module, _ in source.imports()
        if module.split(".")[0] == "nnsight" and not source.path.startswith(NNSIGHT_HOMES)
    ]


def files_importing(library: str, all_sources: list[Source]) -> set[str]:
    """Paths of the files that import `library`, or spell it out as an attribute of its parent."""
    return {
        source.path
        for source in all_sources
        if any(
            module == library or module.startswith(f"{library}.") or f"{module}.{name}" == library
            for _, module, name in source.imports()
        )
        or any(
            isinstance(node, ast.Attribute) and ast.unparse(node) == library
            for node in running(source.tree)
        )
    }


def registers(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and any(
        isinstance(decorator, ast.Call) and ast.unparse(decorator.func).endswith(".register")
        for decorator in node.decorator_list
    )


def what_strangers_may_not_import(lenses: list[Source]) -> list[str]:
    classes = {n.name for source in lenses for n in ast.walk(source.tree) if registers(n)}
    return [
        source.at(line, f"imports {name or module} of {module}")
        for source in lenses
        for line, module, name in source.imports()
        if module.split(".")[0] not in LENS_MAY_IMPORT
        or any(part.startswith("_") for part in module.split(".") if part != "__future__")
        or (module.startswith("nodelens") and name.startswith("_"))
        or (name in classes and not source.path.endswith("__init__.py"))
    ]


def returns_inside_a_trace(all_sources: list[Source]) -> list[str]:
    return [
        source.at(inner.lineno, "return inside a trace block")
        for source in all_sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.With) and any(opens_a_trace(item) for item in node.items)
        for statement in node.body
        for inner in own_statements(statement)
        if isinstance(inner, ast.Return)
    ]


def opens_a_trace(item: ast.withitem) -> bool:
    call = item.context_expr
    return (
        isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "trace"
    )


def own_statements(node: ast.AST) -> Iterator[ast.AST]:
    """`node` and what is below it, but for the bodies of functions defined there."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from own_statements(child)


def test_every_part_of_the_core_has_a_layer():
    assert unplaced_parts(CORE) == [], "add it to LAYERS"


def test_the_page_of_how_it_works_shows_these_layers():
    page = (ROOT / "docs/how-it-works.md").read_text("utf-8").partition("## The parts")[2]
    rows = [line.rpartition(" | ")[2] for line in page.splitlines() if line.startswith("| ")]
    assert [re.findall(r"`(\w+)`", row) for row in rows if "nodelens" not in row] == LAYERS


def test_layers_import_downwards_only():
    assert upward_imports(CORE) == []


def test_no_two_parts_of_a_layer_import_each_other():
    assert circles(CORE) == []


def test_the_core_knows_no_built_in_lens():
    assert built_in_lenses_in_the_core(CORE) == []


def test_nnsight_is_imported_where_models_are_run():
    assert nnsight_outside_its_homes(CORE + LENSES) == []


@pytest.mark.parametrize("library", ["torch.distributed", "yaml"])
def test_one_file_at_most_imports(library):
    files = files_importing(library, CORE + LENSES)
    assert len(files) <= 1, files


def test_a_built_in_lens_imports_what_a_stranger_may():
    assert what_strangers_may_not_import(LENSES) == []


def test_no_trace_block_returns():
    assert returns_inside_a_trace(CORE + LENSES) == []


LENS = "from nodelens import Lens\n@Lens.register('x')\nclass X(Lens): ..."


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (unplaced_parts, "nodelens/extra.py", ""),
        (upward_imports, "nodelens/errors.py", "import nodelens.lens"),
        (upward_imports, "nodelens/model/layers.py", "from nodelens import lens"),
        (upward_imports, "nodelens/lens.py", "from nodelens import Lens"),
        (upward_imports, "nodelens/data/text.py", "def f():\n    from ..metrics import formulas"),
        (upward_imports, "nodelens/model/layers.py", "from .. import cli"),
        (built_in_lenses_in_the_core, "nodelens/registry.py", "import nodelens_lenses.activation"),
        (nnsight_outside_its_homes, "nodelens/metrics/base.py", "from nnsight import save"),
        (what_strangers_may_not_import, "lenses/nodelens_lenses/y.py", "import numpy"),
        (what_strangers_may_not_import, "lenses/nodelens_lenses/y.py", "import nodelens._private"),
        (what_strangers_may_not_import, "lenses/nodelens_lenses/y.py", "from nodelens import _x"),
        (returns_inside_a_trace, "nodelens/lens.py", "with model.trace(x) as t:\n  if t: return 1"),
    ],
)
def test_a_planted_fault_is_found(rule, path, text):
    assert len(rule([planted(path, text)])) == 1


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (upward_imports, "nodelens/lens.py", "from nodelens.aggregator import Aggregator"),
        (upward_imports, "nodelens/model/a.py", "if TYPE_CHECKING:\n  import nodelens.lens"),
        (upward_imports, "nodelens/model/a.py", "from .b import c"),
        (what_strangers_may_not_import, "lenses/nodelens_lenses/y.py", LENS),
        (returns_inside_a_trace, "nodelens/lens.py", "with m.trace():\n  def f(): return 1"),
    ],
)
def test_what_is_allowed_passes(rule, path, text):
    assert rule([planted(path, text)]) == []


def test_a_planted_circle_is_found():
    pair = [
        planted("nodelens/model/a.py", "import nodelens.data"),
        planted("nodelens/data/b.py", "def f(): from nodelens.model import a"),
    ]
    assert len(circles(pair)) == 1


def test_a_lens_of_another_file_is_found():
    pair = [
        planted("lenses/nodelens_lenses/a.py", LENS),
        planted("lenses/nodelens_lenses/b.py", "from nodelens_lenses.a import X"),
    ]
    assert len(what_strangers_may_not_import(pair)) == 1


def test_every_spelling_of_a_library_is_found():
    spellings = [
        "import torch.distributed as d",
        "from torch import distributed",
        "from torch.distributed import all_gather",
        "import torch\ntorch.distributed.barrier()",
    ]
    planted_files = [planted(f"nodelens/{n}.py", text) for n, text in enumerate(spellings)]
    assert len(files_importing("torch.distributed", planted_files)) == len(spellings)


def test_the_source_package_holds_all_that_the_tests_and_pages_need():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    included = project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    missing = [path for path in included if not (ROOT / path[1:]).exists()]
    assert missing == []
    needed = {"/benchmarks", "/docs", "/examples", "/lenses", "/nodelens", "/scripts", "/tests"}
    assert needed <= set(included)
