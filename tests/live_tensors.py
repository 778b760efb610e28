"""What the tensors of this process take."""

import gc

import torch
from torch import nn


def live_bytes() -> int:
    """Storage of every tensor there is that has one: those that other tests' compiler left are without."""
    gc.collect()
    tensors = [found for found in gc.get_objects() if type(found) in (torch.Tensor, nn.Parameter)]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())
