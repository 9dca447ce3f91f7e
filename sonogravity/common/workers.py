"""Worker threads and processes, and their number."""

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from sonogravity.common.messages import InputError


def worker_count(wanted, device):
    """Return the number of worker processes in training: none if the CPU runs the network, a few for a GPU."""
    if wanted is not None:
        return wanted
    return min(4, os.cpu_count() or 1) if device.type == "cuda" else 0


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
