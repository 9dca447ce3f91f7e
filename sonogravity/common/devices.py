"""The device and the precision to compute in. A missing device is refused; float32 replaces missing bfloat16."""

import os
import shutil
from contextlib import contextmanager

import torch

from sonogravity.common.messages import InputError, say
from sonogravity.common.processes import local_rank, process_count


def pick_device(name):
    """Return the device of ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``. Raise InputError if it is missing."""
    mps = torch.backends.mps.is_available()
    if process_count() > 1 and (name == "cuda" or (name == "auto" and torch.cuda.is_available())):
        name = f"cuda:{local_rank()}"  # one GPU per process
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {name}: torch finds {torch.cuda.device_count()} CUDA devices; try --device cpu")
    if device.type == "mps" and not mps:
        raise InputError("--device mps: torch finds no Apple GPU; try --device cpu")
    return device


def amp_type(device, wanted):
    """Return the type of mixed precision, or None for float32.

    CUDA: bfloat16 if the card supports it, else float16 (train with a scaler). CPU: bfloat16 only if the
    processor has units for it (AVX512-BF16, AMX). Without them torch emulates it, 4 to 16 times slower.
    """
    if not wanted:
        return None
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu" and cpu_has_bfloat16():
        return torch.bfloat16
    say(f"--amp: this {device.type} has no units for bfloat16, so float32 is used")
    return None


@contextmanager
def full_float32():
    """Compute float32 convolutions on a GPU in float32. By default torch rounds their inputs to TF32, 10 bits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def describe_use(device, precision):
    """Return, for messages, what computes: the device, the precision and the number of threads."""
    threads = torch.get_num_threads()
    return f"{device}, {precision}, {threads} thread{'s' * (threads > 1)}"


def cpu_has_bfloat16():
    """Return whether the processor multiplies bfloat16 in hardware."""
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(found.get("avx512_bf16") or found.get("amx_bf16") or found.get("bf16"))


def cpp_compiler():
    """Return the C++ compiler that torch.compile will find, or None."""
    names = (os.environ.get("CXX"), "g++", "clang++", "cl")
    return next((found for name in names if name and (found := shutil.which(name))), None)


def need_compiler(option):
    """Raise InputError if there is no C++ compiler for torch.compile."""
    if cpp_compiler() is None:
        raise InputError(
            f"{option}: torch.compile needs a C++ compiler, but none was found (g++, clang++, or the one in CXX); "
            f"install one, or leave out {option}"
        )
