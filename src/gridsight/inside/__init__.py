"""Inside a network: its filters, what its layers say of an item, what moves them, and what they have found.

One question a file, each a function that returns a frozen dataclass of tensors and numbers; nothing is drawn here. They
take any module (N, C, *spatial) -> (N, K) in 1-D, 2-D and 3-D, and the user's own data as a tensor (N, C, *spatial) or
as batches of one item shape, as the network sees them, alone or with answers. Layers are called as
`measure.layers` says. Every pass runs within `nn.undisturbed`; random numbers come from `core.seed`.
"""
