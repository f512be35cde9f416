"""Every task, one a file: what the network puts out, the loss, the metrics and how an output is read."""

from gridsight.core.registry import Registry

TASKS = Registry("task", "gridsight.tasks")
