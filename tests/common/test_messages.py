"""Exceptions and messages shown to the user."""

import numpy as np
import pytest
import torch

from sonogravity.common.messages import is_out_of_memory

SAYS = "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError(SAYS), True),
        (np._core._exceptions._ArrayMemoryError((9,), np.dtype("u1")), True),
        (RuntimeError("shapes differ"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error, expected):
    assert is_out_of_memory(error) is expected
