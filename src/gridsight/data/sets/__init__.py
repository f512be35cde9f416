"""Named data sets, one a file: where their files lie and the split that their publisher defines.

A set is a function without required arguments that returns a `Source`, registered under lower-case names with the tags
`licence`, `paper` (or where it comes from) and `items` (how many). Nothing is decoded, and nothing heavy imported.
Files are looked for in `$GRIDSIGHT_DATA/<name>`, then in the user's cache, then downloaded where that is allowed.
"""

from gridsight.core.registry import Registry

SETS = Registry("data set", "gridsight.data.sets")
