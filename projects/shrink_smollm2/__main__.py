"""`python -m projects.shrink_smollm2`: SmolLM2 and a residual network, before and after surgery.

Each is shrunk by every amount, saved and read again, which has to answer the same; a Markdown table
of parameters, file bytes, multiply-accumulates, rate before and after, and the largest difference
from the masked model is printed and written to `outputs/shrink_smollm2/table.md`. Rates are medians
of passes of the two models in turns: run it on a quiet machine. Try it with
`--networks smollm2 --blocks 2 --context 32 --tokens 256 --rounds 1`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from nodelens.files import write_text
from nodelens.model.logits import logits_of
from nodelens.pruning import Change, Shrunk, load_shrunk, save_shrunk, shrink
from projects.shrink_smollm2.networks import Subject, resnet, smollm2

_HEAD = (
    "| network | removed | parameters | file, MB | MACs, millions | {unit} | difference |\n"
    "|---|--:|--:|--:|--:|--:|--:|"
)


def main() -> None:
    """Shrink what was asked for, print the table and write it."""
    options = _options()
    torch.set_num_threads(options.threads)
    made = {
        "smollm2": lambda: smollm2(options.score, options.tokens, options.context, options.blocks),
        "digits": lambda: resnet(options.epochs),
    }
    lines = []
    for name in options.networks:
        subject = made[name]()
        lines += [_HEAD.format(unit=subject.unit)]
        lines += rows(subject, options.amounts, options.rounds)
        lines += [""]
    lines.append(f"torch {torch.__version__}, {torch.get_num_threads()} threads. {_LEGEND}")
    table = "\n".join(lines) + "\n"
    print(table)
    write_text(options.output_dir / "table.md", table)


_LEGEND = (
    "Before -> after; a difference is the largest between the outputs of the smaller and the masked"
    " model, of the largest masked output."
)


def rows(subject: Subject, amounts: list[float], rounds: int) -> Iterator[str]:
    """Yield a line of the table for every amount."""
    for amount in amounts:
        found = shrink(subject.model, subject.masks(amount), subject.batch, rounds=rounds)
        report = found.report
        rate = Change(*(subject.rows / s for s in (report.seconds.before, report.seconds.after)))
        files = Change(_file_bytes(subject.model.module), _saved_bytes(found, subject))
        cells = (
            subject.title,
            f"{amount:.0%}",
            _shown(report.parameters, 1, "{:,.0f}"),
            _shown(files, 1e6, "{:.2f}"),
            _shown(report.macs, 1e6, "{:,.1f}"),
            _shown(rate, 1, "{:,.0f}"),
            f"{report.difference:.1e}",
        )
        yield f"| {' | '.join(cells)} |"


def _shown(change: Change, unit: float, form: str) -> str:
    both = " -> ".join(form.format(n / unit) for n in (change.before, change.after))
    return f"{both} ({change.ratio:.0%})"


def _saved_bytes(found: Shrunk, subject: Subject) -> int:
    """The size of the weights' file, once the model that is read from it is known to be the same.

    Raises SystemExit where it answers anything else.
    """
    with tempfile.TemporaryDirectory() as folder:
        if found.report.pretrained:
            from transformers import AutoModelForCausalLM

            found.model.save_pretrained(folder)
            again = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
        else:
            again = load_shrunk(save_shrunk(found, folder), subject.model.module)
        with torch.no_grad():
            mine, its = (logits_of(model(subject.batch)) for model in (found.model, again.eval()))
        if not torch.equal(mine, its):
            raise SystemExit(f"{subject.title}: the model that was saved answers something else")
        return _weights(Path(folder))


def _file_bytes(model: torch.nn.Module) -> int:
    from nodelens.files import save_tensors

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if hasattr(model, "save_pretrained"):
            model.save_pretrained(folder)
        else:
            save_tensors(folder / "model.safetensors", model.state_dict())
        return _weights(folder)


def _weights(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=("smollm2", "digits"))
    parser.add_argument("--amounts", nargs="+", type=float, default=[0.25, 0.5])
    parser.add_argument("--score", choices=("scar_loss_proxy", "magnitude"))
    parser.add_argument("--tokens", type=int, default=32_768, help="that units are scored on")
    parser.add_argument("--context", type=int, default=256, help="tokens of a text")
    parser.add_argument("--blocks", type=int, help="of SmolLM2, to try it; default: all")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/shrink_smollm2"))
    parser.set_defaults(networks=["smollm2", "digits"], score="scar_loss_proxy")
    return parser.parse_args()


if __name__ == "__main__":
    main()
