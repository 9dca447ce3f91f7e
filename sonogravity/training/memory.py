"""Training with less memory after memory ran out: activation checkpointing first, then micro-batches."""

from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from sonogravity.common.messages import InputError, is_out_of_memory, warn
from sonogravity.common.processes import process_count, process_rank


@dataclass(frozen=True)
class Memory:
    """Settings that reduce the memory of a training step.

    checkpointing: activations inside the model's blocks are recomputed in the backward pass instead of kept
    (Chen, Xu, Zhang and Guestrin, arXiv 1604.06174, 2016). micro_batch: number of frames that go through the network
    at a time, with gradients summed; None for the whole batch.
    """

    checkpointing: bool = False
    micro_batch: int | None = None

    def sparer(self, batch_size, smallest):
        """Return the next settings to try: checkpointing, then half the frames at a time.

        Return None if half would be fewer than ``smallest`` frames.
        """
        if not self.checkpointing:
            return replace(self, checkpointing=True)
        half = (self.micro_batch or batch_size) // 2
        return replace(self, micro_batch=half) if half >= smallest else None

    def parts(self, frames, smallest):
        """Return slices that split ``frames`` frames into micro-batches of nearly equal size, at least ``smallest``."""
        count = 1 if self.micro_batch is None else -(-frames // self.micro_batch)
        count = max(1, min(count, frames // smallest))
        return [slice(i * frames // count, (i + 1) * frames // count) for i in range(count)]

    def describe(self, batch_size):
        """Return a message that describes the change and tells whether the mathematics stay the same."""
        if self.micro_batch is None:
            return (
                "activations are recomputed instead of kept (activation checkpointing): the weights are the same, but "
                "training is slower"
            )
        return (
            f"batches of {batch_size} go through the network {self.micro_batch} frames at a time and their gradients "
            f"are summed: batch normalisation and the Dice loss then use {self.micro_batch} frames, so scores differ "
            "from those of whole batches"
        )


def compute_again(blocks):
    """Make each block recompute its activations in the backward pass instead of keeping them."""
    for block in blocks:
        if "forward" not in vars(block):
            block.forward = partial(_checkpointed, block, block.forward)


def _checkpointed(block, forward, *inputs):
    if not (block.training and torch.is_grad_enabled()):
        return forward(*inputs)
    contexts = partial(_contexts, block)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts)


def _contexts(block):
    return nullcontext(), _running_statistics_kept(block)


@contextmanager
def _running_statistics_kept(block):
    """Keep the running statistics unchanged while a block is recomputed, so that each batch counts once."""
    norms = [module for module in block.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    before = [(module.momentum, module.num_batches_tracked.clone()) for module in norms]
    for module in norms:
        module.momentum = 0.0  # the update leaves the running statistics unchanged
    try:
        yield
    finally:
        for module, (momentum, counter) in zip(norms, before, strict=True):
            module.momentum = momentum
            module.num_batches_tracked.copy_(counter)


class MemoryRetry:
    """Context of one epoch. If memory runs out, the next entry resets the run to its last completed epoch.

    memory: the current Memory, reduced at each reset. run, step: reset at the next entry, because the failed step
    holds memory until then. Raise InputError if memory cannot be reduced further, or if there are several processes.
    """

    def __init__(self, run, step):
        self.memory = Memory(**run.settings["memory"])
        self._run = run
        self._step = step
        self._done = 0  # epochs completed before the current one
        self._exhausted = False

    def __enter__(self):
        if self._exhausted:
            self._go_back_with_less()
        self._done = len(self._run.history)

    def __exit__(self, kind, error, trace):
        if not isinstance(error, (MemoryError, RuntimeError)) or not is_out_of_memory(error):
            return False
        if process_count() > 1:  # the others wait for its gradients, so it cannot repeat the epoch alone
            raise InputError(
                f"process {process_rank()}: out of memory; try --low-memory, or a smaller --batch-size or --scale"
            ) from error
        del self._run.history[self._done :]  # the epoch may have failed while it was saved
        self._exhausted = True
        return True

    def _go_back_with_less(self):
        optimization, smallest = self._step.optimization, self._step.smallest_batch
        batch_size = self._run.settings["options"]["batch_size"]
        sparer = self.memory.sparer(batch_size, smallest)
        if sparer is None:
            raise InputError(
                f"out of memory even with {smallest} frames at a time; try a smaller --scale or model, or another "
                "--device"
            )
        warn(f"out of memory: {sparer.describe(batch_size)}; the epoch starts again")
        optimization.optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        self._run.go_back(optimization)
        compute_again(optimization.model.blocks())
        if self._step.compiled:
            torch.compiler.reset()  # the compiled network keeps all activations
        self._run.settings["memory"] = asdict(sparer)  # a resumed or repeated run uses the same
        self.memory, self._exhausted = sparer, False
