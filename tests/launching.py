"""torchrun as a process of its own, which ends with the test that started it."""

import contextlib
import os
import signal
import subprocess
import sys

LONGEST_WAIT = 120  # seconds; gloo itself waits for half an hour


def torchrun(script, arguments, *more, processes=2, **options):
    """Start torchrun; it and its processes are one group of the system's."""
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *more]
    return subprocess.Popen(
        [str(part) for part in (*line, script, *arguments)],
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **options,
    )


def finish(process):
    """Its standard output and error; the whole group ends with the test."""
    try:
        return process.communicate(timeout=LONGEST_WAIT)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
