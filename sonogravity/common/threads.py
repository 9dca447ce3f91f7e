"""Threads that wait without holding a processor that others need, and a word where others use it.

The threads of OpenMP, which torch computes with, wait for their next work in a loop: 15 ms with GNU's runtime, 200 ms
with LLVM's and Intel's. On a processor with free cores that is harmless. Beside another program each such loop holds
a core on which that program, or another thread of the same step, would do work, and a step takes many times as long.
``benchmarks/threads.py`` measures the settings.
"""

import os
import sys

from sonogravity.common.messages import say

WAITING = {
    "GOMP_SPINCOUNT": "1000",  # turns of the loop: GNU's runtime, torch on Linux
    "KMP_BLOCKTIME": "1",  # ms: LLVM's and Intel's runtime, torch on macOS and Windows
}
USERS_OWN = (*WAITING, "OMP_WAIT_POLICY")  # a user who sets one of these has chosen
BUSY = 0.5  # load average per core from which a word is said


def wait_briefly():
    """Make the threads of this process wait briefly, unless the user chose how they wait. Call before torch loads."""
    if "torch" not in sys.modules and not any(name in os.environ for name in USERS_OWN):
        os.environ.update(WAITING)


def say_if_busy():
    """Print the load average of the last minute if it shows that other programs may be using the processor."""
    if not hasattr(os, "getloadavg"):  # Windows
        return
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > BUSY * cores:
        say(
            f"processor:  load average {load:.1f} on {cores} cores: if other programs are running, this one takes "
            "longer; OMP_NUM_THREADS sets its number of threads"
        )
