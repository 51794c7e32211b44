"""What measuring costs: plain passes, hand-written hooks and lenses, interleaved in one run."""
