"""Where to compute, and in which precision; what was asked for and is not there is refused or said."""

import os
import shutil

import torch

from sonogravity.common.messages import InputError, say
from sonogravity.common.processes import local_rank, process_count


def pick_device(name):
    """``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps`` -> torch.device; InputError if it is not there."""
    mps = torch.backends.mps.is_available()
    if process_count() > 1 and (name == "cuda" or (name == "auto" and torch.cuda.is_available())):
        name = f"cuda:{local_rank()}"  # a GPU for each process
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {name}: torch sees {torch.cuda.device_count()} CUDA devices; try --device cpu")
    if device.type == "mps" and not mps:
        raise InputError("--device mps: torch sees no Apple GPU here; try --device cpu")
    return device


def amp_type(device, wanted):
    """The type of mixed precision, or None for float32.

    CUDA: bfloat16 if the card has it, else float16 (train with a scaler). CPU: bfloat16 only with
    the units for it (AVX512-BF16, AMX): without them torch emulates it, 4 to 16 times slower.
    """
    if not wanted:
        return None
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu" and cpu_has_bfloat16():
        return torch.bfloat16
    say(f"--amp: this {device.type} has no units for bfloat16, so float32 is used")
    return None


def cpu_has_bfloat16():
    """Whether the processor multiplies bfloat16 in hardware."""
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(found.get("avx512_bf16") or found.get("amx_bf16") or found.get("bf16"))


def cpp_compiler():
    """The C++ compiler that torch.compile will find, or None."""
    names = (os.environ.get("CXX"), "g++", "clang++", "cl")
    return next((found for name in names if name and (found := shutil.which(name))), None)


def need_compiler(option):
    """InputError if torch.compile has no C++ compiler to work with."""
    if cpp_compiler() is None:
        raise InputError(
            f"{option}: torch.compile needs a C++ compiler, and none is found (g++, clang++, or the one that CXX "
            f"names); install one, or leave out {option}"
        )
