"""The way of a new user: what the pages tell to type works as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from nodelens.cli import app
from nodelens.configs.config_loader import load_config

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TYPED = ["README.md", "docs/first-steps.md", "docs/experiments.md"]
BLOCK = re.compile(r"^```(?P<kind>sh|yaml|python|python no-run)\n(?P<body>.*?)^```$", re.M | re.S)
NAMED = re.compile(r"outputs/(\w+)")


def blocks(page: Path, *kinds: str, behind: str = "") -> list[str]:
    text = page.read_text("utf-8")
    found = BLOCK.finditer(text.partition(behind)[2] if behind else text)
    return [block["body"] for block in found if block["kind"] in kinds]


def configurations(page: Path) -> dict[str, str]:
    """The experiments of a page, by the name under which the page runs them."""
    texts = [text for text in blocks(page, "yaml") if text.startswith("experiment:")]
    return {f"{NAMED.findall(text)[-1]}.yaml": text for text in texts}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a user's: the examples in `configs`, the command in the path."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    command = tmp_path / "bin" / "nodelens"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m nodelens "$@"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'lenses'}")
    return tmp_path


def type_in(desk: Path, command: list[str]) -> None:
    done = subprocess.run(command, cwd=desk, capture_output=True, text=True)
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


@pytest.mark.slow
@pytest.mark.parametrize("page", TYPED)
def test_the_commands_of_a_page_do_what_it_says(page: str, desk: Path) -> None:
    for name, text in configurations(ROOT / page).items():
        (desk / name).write_text(text)
    typed = [block for block in blocks(ROOT / page, "sh") if not block.startswith("make ")]
    assert typed
    for block in typed:
        type_in(desk, ["sh", "-ec", block])
    assert list(desk.glob("outputs/*/report.html"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "left"),
    [
        ("docs/comparing-runs.md", "outputs/compared/tests.tex"),
        ("docs/tracking.md", "outputs/first/tracking/tensorboard/events.out.tfevents.*"),
    ],
)
def test_commands_on_the_template_leave_what_their_page_says(
    page: str, left: str, desk: Path
) -> None:
    """The template is replaced by the README's configuration, which is done sooner."""
    if "tracking" in page:
        pytest.importorskip("tensorboard", reason="it comes with nodelens[tracking]")
    small = configurations(ROOT / "README.md")["first.yaml"] + "training: {epochs: 1}\n"
    (desk / "configs/examples/template.yaml").write_text(small)
    for block in blocks(ROOT / page, "sh"):
        lines = re.sub(r"^(pip|tensorboard) .*\n", "", block, flags=re.M)
        type_in(desk, ["sh", "-ec", lines])
    assert list(desk.glob(left))


@pytest.mark.slow
def test_an_experiment_runs_from_python_as_its_page_says(desk: Path) -> None:
    page, kinds = ROOT / "docs/experiments.md", ("python", "python no-run")
    code = "".join(blocks(page, *kinds, behind="## From Python\n"))
    assert "Experiment(config).run()" in code
    type_in(desk, [sys.executable, "-c", f"{code}\nprint(scores.score_names)"])


@pytest.mark.parametrize(
    "page", [page for page in PAGES if configurations(page)], ids=lambda p: p.name
)
def test_every_configuration_of_a_page_is_one(page: Path, tmp_path: Path) -> None:
    for name, text in configurations(page).items():
        (tmp_path / name).write_text(text)
        assert load_config(tmp_path / name).lenses


def commands() -> list[str]:
    """Every `nodelens ...` that some page tells to type, in a block or in a sentence."""
    typed = [line.strip() for page in PAGES for line in "".join(blocks(page, "sh")).splitlines()]
    spans = [
        s for page in PAGES for s in re.findall(r"`(nodelens [a-z][^`\n]*)`", page.read_text())
    ]
    return sorted({line.partition(" #")[0].strip() for line in [*typed, *spans]})


@pytest.mark.parametrize("typed", [c for c in commands() if c.startswith("nodelens ")])
def test_every_command_of_every_page_is_one(typed: str) -> None:
    group = get_command(app)
    context = group.make_context("nodelens", ["run"], resilient_parsing=True)
    words = shlex.split(typed.replace("$seed", "1"))[1:]
    name, command, rest = group.resolve_command(context, words)
    # A sentence may name the command alone.
    command.make_context(name, rest, parent=context, resilient_parsing=not rest)


def test_the_page_of_an_own_package_is_what_its_test_installs() -> None:
    text = (ROOT / "examples/acme_lens/README.md").read_text("utf-8")
    (block,) = re.findall(r"^```\n(.*?)^```$", text, re.M | re.S)
    install, use, check = block.splitlines()
    assert (ROOT / install.removeprefix("pip install ")).samefile(ROOT / "examples/acme_lens")
    assert check == "nodelens check acme.silence" and 'from_name("acme.silence")' in use


def test_make_demo_is_the_run_of_first_steps() -> None:
    recipe = re.search(r"^demo:.*\n\t\$\(BIN\)/(.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert recipe is not None
    assert recipe[1] in "".join(blocks(ROOT / "docs/first-steps.md", "sh"))


def test_the_readme_starts_with_targets_that_exist() -> None:
    targets = re.findall(r"^make ([a-z-]+)", blocks(ROOT / "README.md", "sh")[0], re.M)
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert targets == ["demo", "test"]
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)
