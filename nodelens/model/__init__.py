"""Models made ready for tracing: layers and their channel axis, forward order, loading."""

from nodelens.model.layers import Layer
from nodelens.model.loading import load_model
from nodelens.model.wrapper import ModelWrapper, wrap

__all__ = ["Layer", "ModelWrapper", "load_model", "wrap"]
