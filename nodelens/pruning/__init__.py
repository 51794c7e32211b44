"""Removing channels: groups of channels that go together, and surgery that takes them out."""

from nodelens.pruning.saving import load_shrunk, save_shrunk
from nodelens.pruning.shrink import Shrunk, shrink
from nodelens.pruning.shrunk_report import Change, ShrinkReport

__all__ = ["Change", "ShrinkReport", "Shrunk", "load_shrunk", "save_shrunk", "shrink"]
