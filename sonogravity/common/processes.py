"""Which process of a group this is, as torchrun starts them; alone, it is the first of one."""

import os


def process_count():
    """World size: how many processes torchrun started, this one included."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def process_rank():
    """This process's number among them, from 0."""
    return int(os.environ.get("RANK", "0")) if process_count() > 1 else 0


def local_rank():
    """This process's number on its own machine: which GPU it takes."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_first_process():
    """Whether this process speaks and writes for all that torchrun started."""
    return process_rank() == 0


def restarted():
    """Whether torchrun started these processes anew because one had died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def may_restart():
    """Whether torchrun was given --max-restarts."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0


def is_lost_process(error):
    """Whether an exception means that another process of the group is gone."""
    text = str(error).lower()
    return process_count() > 1 and any(word in text for word in ("gloo", "nccl", "closed by peer", "connection reset"))
