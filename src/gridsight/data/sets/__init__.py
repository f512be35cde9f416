"""Named data sets, one a file: where their files lie and the split that their publisher defines."""

from gridsight.core.registry import Registry

SETS = Registry("data set", "gridsight.data.sets")
