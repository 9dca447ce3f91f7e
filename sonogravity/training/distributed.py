"""Training of one model by several processes, which torchrun starts. A single process does not communicate.

Each process holds the whole model and takes its share of the frames of each step. Gradients are averaged over the
processes (Li et al., PyTorch Distributed, arXiv 2006.15704, 2020). Only the first process writes files and messages.
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


def alone():
    """Return whether this process trains without others, so that there is no group of processes."""
    return process_count() == 1


def join(device):
    """Join the other processes that torchrun started, if there are any: with NCCL on GPUs, with gloo on CPUs.

    device: the value of --device. Raise InputError if it names one GPU (cuda:0).
    """
    if alone():
        return
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if ":" in device:
        raise InputError(f"--device {device}: with torchrun each process uses its own GPU; give --device cuda")
    store, rank, world_size = next(dist.rendezvous("env://"))
    # After a restart the store still holds the addresses of the earlier processes. The prefix separates the attempts.
    store = dist.PrefixStore(f"attempt {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    dist.init_process_group("nccl" if on_gpu else "gloo", store=store, rank=rank, world_size=world_size)
    if on_gpu:
        torch.cuda.set_device(local_rank())
    else:
        say(
            "gloo on the CPU cannot synchronise batch statistics: batch normalisation in each process uses its own "
            "frames only, and the running statistics are averaged after each epoch"
        )


def leave():
    """Leave the group of processes at the end of the work."""
    if dist.is_initialized():
        dist.destroy_process_group()


def broadcast(value):
    """Return the value of the first process, in all processes."""
    if alone():
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def gather(value):
    """Return the values of all processes in the order of their ranks."""
    if alone():
        return [value]
    values = [None] * process_count()
    dist.all_gather_object(values, value)
    return values


def wrap_model(network, model, device):
    """Return the network for training. Its gradients are averaged over the processes.

    On GPUs batch normalisation uses the frames of all processes. With one process, return the network unchanged.
    """
    if alone():
        return network
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # in place: the model is not itself a batch normalisation
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # newer torch renames broadcast_buffers
        return DistributedDataParallel(
            network, device_ids=[device.index] if device.type == "cuda" else None, broadcast_buffers=False
        )


def no_sync(network, last):
    """Return a context for one micro-batch. Gradients are averaged over the processes only after the last one.

    Processes may split their frames into different numbers of micro-batches, so the earlier ones must not wait.
    """
    return network.no_sync() if isinstance(network, DistributedDataParallel) and not last else nullcontext()


def average_statistics(*models):
    """Average the running statistics over the processes, so that all validate and save the same model."""
    if alone():
        return
    for model in dict.fromkeys(models):  # a model given twice is averaged once
        stored = model.state_dict().keys()  # constants beside the weights stay
        for name, buffer in model.named_buffers():
            if buffer.is_floating_point() and name in stored:
                dist.all_reduce(buffer)
                buffer /= process_count()
