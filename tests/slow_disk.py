"""Run a script on a disk that takes its time: ``python tests/slow_disk.py unet/train --epochs 3 ...``.

Each file's bytes reach the disk in pieces with pauses between, so that a kill finds many of them half written.
"""

import importlib
import os
import stat
import sys
import time

PIECES, PAUSE = 6, 0.012  # seconds

real_fsync = os.fsync


def slow_fsync(descriptor):
    """Write the file once more, piece by piece, then flush it."""
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode):
        content = os.pread(descriptor, found.st_size, 0)
        os.ftruncate(descriptor, 0)
        step = max(1, -(-len(content) // PIECES))
        for start in range(0, len(content), step):
            os.pwrite(descriptor, content[start : start + step], start)
            time.sleep(PAUSE)
    real_fsync(descriptor)


if __name__ == "__main__":
    os.fsync = slow_fsync
    sys.argv = sys.argv[1:]
    sys.exit(importlib.import_module(sys.argv[0].replace("/", ".")).main(sys.argv[1:]))
