"""`python -m projects.supernodes_scar`: the supernode study, and the bundle of its results.

Without a command the study is run: measured into `outputs/supernodes_scar`, where a later call goes
on from, and written up in `docs/supernode-study.md`. `page` writes that page again from the files,
`prepare` makes a bundle of the results with checksums, `verify` checks one. A run elsewhere, with
`--output-dir`, has its page there too. Needs `make models`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from projects.supernodes_scar.bundle import prepare, verify
from projects.supernodes_scar.page import write_page
from projects.supernodes_scar.run import run_study
from projects.supernodes_scar.study import Settings

COMMANDS = ("run", "page", "prepare", "verify")
OUTPUT = Path("outputs/supernodes_scar")


def main() -> int:
    """Do what the command says; 1 for a bundle that is not as it was prepared."""
    options = _options()
    if options.command == "run":
        torch.set_num_threads(options.threads)
        chosen = {name: getattr(options, name) for name in ("model", "text", "tokens", "blocks")}
        run_study(Settings(**chosen, seeds=options.seeds), options.output_dir)
    if options.command in ("run", "page"):
        docs = {} if options.output_dir == OUTPUT else {"docs": options.output_dir / "docs"}
        print(write_page(options.output_dir, **docs))
    elif options.command == "prepare":
        print(prepare(options.output_dir, options.bundle))
    else:
        problems = verify(options.bundle)
        print("\n".join(problems) or f"{options.bundle}: every file is as it was prepared")
        return int(bool(problems))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    plain = Settings()
    parser.add_argument("command", nargs="?", choices=COMMANDS, default="run")
    parser.add_argument("--model", default=plain.model, help="packaged, a folder or a hub name")
    parser.add_argument("--text", default=plain.text)
    parser.add_argument("--tokens", type=int, default=plain.tokens, help="to score units on")
    parser.add_argument("--blocks", type=int, default=plain.blocks, help="of 256 to test on")
    parser.add_argument("--seeds", type=int, default=plain.seeds, help="of random 1% of units")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output-dir", type=Path, default=OUTPUT)
    parser.add_argument("--bundle", type=Path, default=Path("outputs/supernodes_scar_bundle"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
