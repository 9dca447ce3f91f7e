"""The rank of this process in the group that torchrun started. Without torchrun it is the only process."""

import os


def process_count():
    """Return the world size: the number of processes that torchrun started, this one included."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def process_rank():
    """Return the rank of this process, from 0."""
    return int(os.environ.get("RANK", "0")) if process_count() > 1 else 0


def local_process_count():
    """Return the number of these processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if process_count() > 1 else 1


def local_rank():
    """Return the rank of this process on its machine, which is also the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_first_process():
    """Return whether this process prints and writes for all processes."""
    return process_rank() == 0


def restarted():
    """Return whether torchrun restarted these processes because one had died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def may_restart():
    """Return whether torchrun was given --max-restarts."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0


def is_lost_process(error):
    """Return whether an exception means that another process of the group has ended."""
    text = str(error).lower()
    return process_count() > 1 and any(word in text for word in ("gloo", "nccl", "closed by peer", "connection reset"))
