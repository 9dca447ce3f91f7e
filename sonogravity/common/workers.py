"""Worker threads and processes, and their number."""

import multiprocessing.queues
import os
import shutil
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from sonogravity.common.messages import InputError, warn
from sonogravity.common.processes import local_process_count

SHARED_MEMORY = Path("/dev/shm")  # Linux; elsewhere shared memory has no such limit
BATCHES_AHEAD = 2  # batches that each worker process prepares ahead (DataLoader's prefetch_factor)
BATCHES_IN_USE = 2  # of the step, and on their way to a GPU


def worker_count(wanted, device):
    """Return the number of worker processes in training: none if the CPU runs the network, a few for a GPU."""
    if wanted is not None:
        return wanted
    return min(4, os.cpu_count() or 1) if device.type == "cuda" else 0


def workers_with_room(workers, batch_bytes):
    """Return how many of the worker processes shared memory has room for. Warn if these are fewer.

    Batches of batch_bytes reach the training through shared memory, of which a container has 64 MB unless told
    otherwise.
    """
    if not (workers and SHARED_MEMORY.is_dir()):
        return workers
    free = shutil.disk_usage(SHARED_MEMORY).free // local_process_count()
    room = max(0, (free // batch_bytes - BATCHES_IN_USE) // BATCHES_AHEAD)
    if room < workers:
        warn(
            f"--workers {workers}: {SHARED_MEMORY} has {free / 1e6:.0f} MB free for batches of {batch_bytes / 1e6:.0f} "
            f"MB, so {room} worker processes are used; the results are the same. Containers get more with --shm-size"
        )
    return min(workers, room)


def end_worker_without_room(worker):
    """Make a worker process end if it can't pass a batch on. Else it prints the error, and the training waits for ever.

    worker: its number, which a DataLoader passes.
    """

    def end(error, batch):
        os._exit(1)

    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(end)  # the hook that Python has for this


def decoding_threads(wanted):
    """Return the number of threads that decode frames, or score and write them."""
    return (os.cpu_count() or 1) if wanted is None else wanted


def threads_beside(wanted, device):
    """Return the same number while a network runs: half of the cores if it runs on the CPU."""
    if wanted is None and device.type == "cpu":
        return max(1, (os.cpu_count() or 1) // 2)
    return decoding_threads(wanted)


def ahead(function, items, workers):
    """Yield ``map(function, items)`` in order, computed by threads a few items ahead of the caller.

    Decoding releases the interpreter lock, so threads suffice and nothing is pickled. If ``items`` raises an
    InputError, yield the results of the items before it first.
    """
    if workers <= 0:
        yield from map(function, items)
        return
    items, waiting, refused = iter(items), deque(), None
    pool = ThreadPoolExecutor(workers)
    try:
        while True:
            try:
                for item in islice(items, 2 * workers - len(waiting)):
                    waiting.append(pool.submit(function, item))
            except InputError as error:
                refused, items = error, iter(())
            if not waiting:
                break
            yield waiting.popleft().result()
        if refused is not None:
            raise refused
    finally:
        pool.shutdown(cancel_futures=True)
