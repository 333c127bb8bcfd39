"""Training methods: one file each.

A method is a module: `forward(batch) -> (loss, metrics)` with a dict of views in, and a dict of scalar
tensors out. It owns its networks; what must survive a restart is in its `state_dict`.
"""
