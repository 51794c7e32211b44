"""The stages that experiments are made of."""
