"""Several processes that train one model together, as torchrun starts them; alone, every function does nothing.

Each process holds the whole model and takes its share of each step's frames; gradients are averaged over them
(Li et al., PyTorch Distributed, arXiv 2006.15704, 2020). The first process alone writes and speaks.
"""

import os
import warnings
from contextlib import nullcontext

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sonogravity.common.messages import InputError, say
from sonogravity.common.processes import local_rank, process_count


def join(device):
    """Meet the other processes that torchrun started, if there are any. device: what --device asks for.

    GPUs talk by NCCL, processors by gloo.
    """
    if process_count() == 1:
        return
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if ":" in device:
        raise InputError(f"--device {device}: with torchrun each process takes a GPU of its own; give --device cuda")
    store, rank, world_size = next(dist.rendezvous("env://"))
    # After a restart the store still holds the addresses of the processes before it: keep the attempts apart.
    store = dist.PrefixStore(f"attempt {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    dist.init_process_group("nccl" if on_gpu else "gloo", store=store, rank=rank, world_size=world_size)
    if on_gpu:
        torch.cuda.set_device(local_rank())
    else:
        say(
            "gloo on the processor cannot synchronise batch statistics: batch normalisation sees each process's own "
            "frames, and the running statistics are averaged after each epoch"
        )


def leave():
    """Part from the others, at the end of the work."""
    if dist.is_initialized():
        dist.destroy_process_group()


def broadcast(value):
    """The first process's value, in all of them."""
    if process_count() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def gather(value):
    """Every process's value, in the order of their numbers."""
    if process_count() == 1:
        return [value]
    values = [None] * process_count()
    dist.all_gather_object(values, value)
    return values


def wrap_model(network, model, device):
    """The network to step, with gradients averaged over the processes; on GPUs batch statistics are of all frames."""
    if process_count() == 1:
        return network
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # in place: the model itself is no batch normalisation
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # newer torch has another name for broadcast_buffers
        return DistributedDataParallel(
            network, device_ids=[device.index] if device.type == "cuda" else None, broadcast_buffers=False
        )


def no_sync(network, last):
    """A context in which gradients stay the process's own, unless it is the step's last part: then they are averaged.

    Processes may cut their frames into different numbers of parts, so all but the last must not wait for the others.
    """
    return network.no_sync() if isinstance(network, DistributedDataParallel) and not last else nullcontext()


def average_statistics(*models):
    """Give all processes the mean of their running statistics, so that they validate and save one model."""
    if process_count() == 1:
        return
    for model in dict.fromkeys(models):  # one that is named twice is averaged once
        for buffer in model.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= process_count()
