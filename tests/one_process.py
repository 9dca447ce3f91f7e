"""unet/train.py in a group of one process over NCCL, for training/test_gpu.py: all that a single GPU allows.

The code takes one process for none, so that it makes no group. Here it makes one.
"""

import sys

import torch.distributed as dist
from torch import nn

from sonogravity.common import devices
from sonogravity.training import distributed
from unet import train

wrap_model = distributed.wrap_model


def wrapped(network, model, device):
    """Wrap the model, and print what it became."""
    network = wrap_model(network, model, device)
    norms = [type(module).__name__ for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    print(f"group: {dist.get_backend()}, {dist.get_world_size()}, {device}, {type(network).__name__}, {set(norms)}")
    return network


if __name__ == "__main__":
    distributed.alone = lambda: False
    devices.process_count = lambda: 2  # so that the GPU is the one of this rank, as with several
    distributed.wrap_model = wrapped
    sys.exit(train.main(sys.argv[1:]))
