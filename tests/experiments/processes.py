"""Starting runs as processes of their own, some with a fault planted in one of them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SLOW = """
    import os, signal, sys, time
    from nodelens.errors import InvalidValueError
    from nodelens.stream import Stream
    from nodelens.experiments.stages.network import NetworkStage

    rank, one, network = os.environ.get("RANK", "0"), Stream._one, NetworkStage.run

    def slowly(self, given):
        self.seen = getattr(self, "seen", 0) + 1
        if {fails_measuring!r} == rank and self.seen == 2:
            raise InvalidValueError("planted")
        if {dies!r} == rank and self.seen == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep({pause})
        return one(self, given)

    def train(self, run):
        if {fails_training!r}:
            raise ZeroDivisionError("planted")
        return network(self, run)

    Stream._one, NetworkStage.run = slowly, train
    from nodelens.cli import main
    main()
"""


def script(folder: Path, pause: float = 0.0, **faults: str) -> Path:
    """Write the command with faults planted: `fails_measuring`, `dies` (a rank), `fails_training`.

    Each batch takes `pause` seconds more.
    """
    told = {"fails_measuring": "", "dies": "", "fails_training": "", **faults}
    path = folder / "planted.py"
    path.write_text(textwrap.dedent(SLOW).format(pause=pause, **told))
    return path


def environment(**more: str) -> dict[str, str]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "lenses")])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **more}


def start(*words: object, **more: str) -> subprocess.Popen[str]:
    """Start Python with these words."""
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def torchrun(*words: object) -> subprocess.CompletedProcess[str]:
    """Run two ranks and return how they ended."""
    front = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = start(*front, *words)
    printed, errors = process.communicate(timeout=120)
    return subprocess.CompletedProcess(words, process.returncode, printed, errors)


def two_ranks(*words: object) -> list[subprocess.CompletedProcess[str]]:
    """Run two ranks that nobody stops when the other one fails, and return how they ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = [start(*words, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(2)]
    ended = []
    for process in started:
        printed, errors = process.communicate(timeout=60)
        ended.append(subprocess.CompletedProcess(words, process.returncode, printed, errors))
    return ended
