"""The example notebooks run from top to bottom; what is committed of them is small and clean."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "examples/notebooks").glob("*.ipynb"))
MOST_BYTES = 150_000
MACHINE = re.compile(r"/(home|root|tmp|Users|work|opt|usr)/|site-packages|[A-Z]:\\")

pytestmark = pytest.mark.slow
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path):
    reason = "nbclient and ipykernel are not installed: they are in .[dev]"
    pytest.importorskip("ipykernel", reason=reason)
    pytest.importorskip("nbclient", reason=reason)
    import nbformat

    return nbformat.read(path, as_version=4)


def execute(notebook) -> None:
    """Run every cell in a kernel of its own, in the repository's folder."""
    from nbclient import NotebookClient

    place = {"metadata": {"path": str(ROOT)}}
    client = NotebookClient(notebook, kernel_name="python3", timeout=280, resources=place)
    # One that it makes itself it also shuts down, with all sockets.
    client.create_kernel_manager().transport = "ipc"
    client.execute()


def test_there_are_three():
    assert [path.stem for path in NOTEBOOKS] == ["language_model", "own_plugin", "vision"]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=pytest.mark.models if path.stem == "language_model" else ())
        for path in NOTEBOOKS
    ],
    ids=lambda path: path.stem,
)
def test_every_cell_runs_and_says_nothing_beside(path):
    notebook = read(path)
    execute(notebook)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []


@pytest.mark.filterwarnings("default")
def test_a_cell_that_fails_is_noticed():
    from nbclient.exceptions import CellExecutionError

    notebook = copy.deepcopy(read(NOTEBOOKS[0]))
    notebook.cells = [notebook.cells[1]]
    notebook.cells[0].source = "1 / 0"
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        execute(notebook)


@each
def test_what_is_committed_was_executed_whole_and_names_no_machine(path):
    assert path.stat().st_size < MOST_BYTES
    code = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = [output.output_type for cell in code for output in cell.outputs]
    assert kinds and "error" not in kinds
    texts = [
        text
        for cell in code
        for output in cell.outputs
        for kind, text in [("text", output.get("text", "")), *output.get("data", {}).items()]
        if not kind.startswith("image/")
    ]
    assert [found for text in texts if (found := MACHINE.search(text))] == []
