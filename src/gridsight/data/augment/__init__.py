"""Batched augmentation, one operation a file: functions of a batch and of uniform numbers, on the training device.

An operation is a function `(x, u, strength) -> x` with x (N, C, *spatial) float, u (N, count) uniform in [0, 1) and
`strength` in the unit that its docstring names; strength 0 is the identity. It draws nothing itself: the caller makes
`u` with `core.seed.uniform(seed, epoch, items, operation, count)`, so an item's augmentation never depends on its batch.
Registered tags: `ndims`, `count(ndim) -> int` numbers an item, `domain` ("grid": before the network; "signal": on raw
samples, before the front end; "spectrum": on (N, C, mel, time) after it), `label_risk`: why it could change a label.
"""

from gridsight.core.registry import Registry

AUGMENTS = Registry("augmentation", "gridsight.data.augment")
