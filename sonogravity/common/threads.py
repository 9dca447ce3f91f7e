"""How threads wait for their next work, so that a run neither loses time alone nor stands still beside other programs.

The threads of OpenMP, which torch computes with, wait in a loop: for a number of turns with GNU's runtime, for 200 ms
with LLVM's and Intel's. That is fastest where each has a core. On a processor that other programs use, such a loop
holds a core on which they, or another thread of the same step, would do work, and a step takes several times as long.
``benchmarks/threads.py`` measures the settings.
"""

import os
import sys
import time
from pathlib import Path

from sonogravity.common.messages import say

# Turns of the loop, for GNU's runtime (torch on Linux); ms, for LLVM's and Intel's (torch on macOS and Windows).
ALONE = {"GOMP_SPINCOUNT": "30000", "KMP_BLOCKTIME": "1"}
BESIDE_OTHERS = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}
USERS_OWN = (*ALONE, "OMP_WAIT_POLICY")  # a user who sets one of these has chosen
STAT, LOOKS, PAUSE_S = Path("/proc/stat"), 5, 0.004
BUSY = 0.5  # load average per core from which other programs are mentioned


_busy = []  # what say_if_busy prints, found before this process computes anything itself


def wait_briefly():
    """Set how the threads of this process wait, unless the user has. Call before torch loads."""
    if "torch" in sys.modules:
        return
    others = _others_run()
    if not any(name in os.environ for name in USERS_OWN):
        os.environ.update(BESIDE_OTHERS if others else ALONE)
    load, cores = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0, os.cpu_count() or 1
    if load > BUSY * cores and (others or not STAT.exists()):  # the load may also be that of an earlier run
        _busy.append(
            f"processor:  other programs use it (load average {load:.1f} on {cores} cores), so this one takes longer; "
            "OMP_NUM_THREADS sets its number of threads"
        )


def beside_others():
    """Return whether the threads of this process wait as beside other programs."""
    return all(os.environ.get(name) == value for name, value in BESIDE_OTHERS.items())


def say_if_busy():
    """Print once that other programs used the processor when this one began."""
    while _busy:
        say(_busy.pop())


def _others_run():
    """Return whether other programs use the processor at this moment; False if the system does not say (not Linux)."""
    found = []
    for _ in range(LOOKS):
        time.sleep(PAUSE_S)
        try:
            lines = STAT.read_text(encoding="ascii").splitlines()
            running = next(int(line.split()[1]) for line in lines if line.startswith("procs_running"))
        except (OSError, StopIteration, ValueError):
            return False
        found.append(running > 1)  # this process is one of them
    return sum(found) > LOOKS // 2
