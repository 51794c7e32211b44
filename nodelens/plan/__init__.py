"""What a run will take, told before it: passes, reads, bytes and work; and splitting a run."""

from nodelens.plan.passes import Passes, Step
from nodelens.plan.plan import MemoryPlan, PlannedPass, PlannedRead
from nodelens.plan.run import Planned

__all__ = ["MemoryPlan", "Passes", "Planned", "PlannedPass", "PlannedRead", "Step"]
