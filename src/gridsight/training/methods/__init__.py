"""Every way to learn, one a file: what a batch costs, and the optimisers it needs."""

from gridsight.core.registry import Registry

METHODS = Registry("method", "gridsight.training.methods")
