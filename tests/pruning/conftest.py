"""Tiny networks: one thread is several times faster than two that wait for one another."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import threadpoolctl
import torch


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        yield
    torch.set_num_threads(before)
