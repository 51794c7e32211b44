"""SmolLM2 and a residual network on digits made smaller: what that saves, and that it is exact."""
