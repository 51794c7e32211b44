"""Two processes with shards of different size, or none, gather what one process measures."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from nodelens import CompositeLens, Lens, LensResult
from nodelens.testing.subjects import SUBJECTS, rows_of
from nodelens.testing.trial import assert_close, assert_equal

# Processes that each load torch and nnsight take seconds; one worker starts them once.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("distributed")]

NAMES = [
    "activation_kurtosis",
    "activation_max",
    "activation_outlier_index",
    "average_redundancy",
    "gradient_alignment",
    "mutual_information_gaussian",
    "rayleigh_quotient",
    "synergy_gaussian_mmi",
    "taylor_saliency",
    "weight_magnitude",
]
SIZES = [5, 1, 3, 7, 2, 4, 6]
SHARDS = {
    "unequal": [[0, 1, 2, 3, 4], [5, 6]],
    "first empty": [[], [0, 1, 2, 3, 4, 5, 6]],
    "second empty": [[0, 1, 2, 3, 4, 5, 6], []],
    "interleaved": [[0, 2, 4, 6], [1, 3, 5]],
}

RANK = """
    import sys
    from pathlib import Path
    import torch, torch.distributed as dist
    from tests.test_distributed import SHARDS, batches, budget, lens, model

    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}",
                            rank=rank, world_size=2)
    network, given = model(), batches()
    for name, shards in SHARDS.items():
        made = lens()
        aggregator = made.aggregator()
        mine = [given[i] for i in shards[rank]]
        for statistics in made.analyse_batched(network, mine):
            aggregator.update(statistics)
        gathered = aggregator.gather()
        assert gathered.batches == 7 and aggregator.batches == len(mine)
        gathered.result().save(folder / name / str(rank))
        passes = made.passes(network, given[:1], budget(), merged=True)
        for step in passes.steps:
            aggregator = step.lens.measure(passes.model, mine, progress=False, **step.options)
            passes.take(step, aggregator.gather().result())
        assert len(passes.steps) > 2
        passes.result().save(folder / f"{name} in passes" / str(rank))
    dist.destroy_process_group()
"""


def lens() -> Lens:
    return CompositeLens([Lens.from_name(name) for name in NAMES])


def model() -> torch.nn.Module:
    return SUBJECTS[0].model().double()


def budget() -> int:
    """What is too little for one pass, with room for another rank's state."""
    return lens().plan(model(), batches()[0]).peak["cpu"] * 2 // 3


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    images, classes = SUBJECTS[0].batch(sum(SIZES))
    # Classes in order: most of them are never seen by one of the ranks.
    batch, ends = (images.double(), classes.sort().values), torch.tensor(SIZES).cumsum(0).tolist()
    return [rows_of(batch, slice(end - size, end)) for size, end in zip(SIZES, ends, strict=True)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks saved."""
    folder = tmp_path_factory.mktemp("ranks")
    root = Path(__file__).resolve().parent.parent
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(RANK), str(rank), str(folder)],
            cwd=root,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in ranks:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    return folder


@pytest.fixture(scope="module")
def alone() -> LensResult:
    """What one process measures of the whole stream."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    result = lens().run(model(), batches(), progress=False)
    torch.set_num_threads(threads)
    return result


@pytest.mark.parametrize("shards", [*SHARDS, *(f"{name} in passes" for name in SHARDS)])
def test_gathered_ranks_give_what_one_process_gives(folder: Path, alone, shards: str):
    first, second = (LensResult.load(folder / shards / str(rank)) for rank in range(2))
    assert_equal(first, second)
    assert_close(first, alone, 1e-10)
    assert first.notes == second.notes
    assert first.rows == second.rows == alone.rows
    assert first.units == alone.units and first.params == alone.params
