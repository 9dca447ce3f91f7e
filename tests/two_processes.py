"""A process of several under torchrun: writes the gradients of each step, for test_distributed.py and test_gpu.py."""

import sys

import torch
from torch import nn

from sonogravity.common.processes import process_count, process_rank
from sonogravity.datasets import loader
from sonogravity.training import distributed, steps
from sonogravity.training.losses import HeadsLoss, SegmentationLoss
from sonogravity.training.memory import Memory
from sonogravity.training.optimization import Optimization, Plan, make_optimizer, make_scheduler
from unet.model import UNet


class FrozenUNet(UNet):
    """Its batch normalisation uses fixed statistics, so that a frame's gradient does not hang on its batch."""

    def train(self, mode=True):
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


class Loader:
    """Batches of seeded frames, in the order of an epoch."""

    def __init__(self, frames, batch_size):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(frames, 1, 20, 18, generator=generator).double()
        self.masks = torch.randint(3, (frames, 20, 18), generator=generator)
        self.batch_sampler = loader.EpochBatches(frames, batch_size, 0, 1, process_count(), process_rank())

    def __len__(self):
        return len(self.batch_sampler)

    def __iter__(self):
        for keys in self.batch_sampler:
            indices = [index for index, _ in keys]
            heights = torch.full((len(indices),), 20)
            yield loader.Batch(self.images[indices], self.masks[indices], heights, [str(index) for index in indices])


class Loss(SegmentationLoss):
    """In float64, so that rounding is far below what is compared."""

    def forward(self, logits, classes):
        return nn.functional.cross_entropy(logits, classes)


def gradients(frames, batch_size, accumulate=1, micro_batch=None, device="cpu"):
    """The epoch's mean loss and the gradient of each step, the weights left as they are.

    On a GPU batch normalisation is trained, because several processes synchronise its statistics there.
    """
    torch.manual_seed(0)
    device = torch.device(device)
    model = (UNet if device.type == "cuda" else FrozenUNet)(1, 3, 2).double().to(device)
    network = distributed.wrap_model(model, model, device)
    found = []
    optimizer = make_optimizer("sgd", model.parameters(), 0.0, 0.0)
    optimizer.register_step_pre_hook(lambda *_: found.append([p.grad.clone().cpu() for p in model.parameters()]))
    scheduler = make_scheduler("constant", optimizer, Plan([[0, 1]]), 1)
    optimization = Optimization(model, optimizer, scheduler, device=device, clip_norm=1e9)
    step = steps.Step(network, HeadsLoss(Loss("ce"), ()), optimization, device, accumulate=accumulate)
    loss, _, _ = steps.train_one_epoch(step, Loader(frames, batch_size), Memory(False, micro_batch), "epoch")
    return loss, found


if __name__ == "__main__":
    target, frames, batch_size, accumulate, micro_batch = sys.argv[1], *map(int, sys.argv[2:6])
    distributed.join("cpu")  # gloo, also on a GPU: NCCL wants a GPU for each process
    outcome = gradients(frames, batch_size, accumulate, micro_batch or None, *sys.argv[6:])
    if process_rank() == 0:
        torch.save(outcome, target)
    distributed.leave()
