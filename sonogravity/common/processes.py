"""Which of several processes this one is, as torchrun starts them; alone, the first of one."""

import os


def process_count():
    """How many processes torchrun started, this one included."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def is_first_process():
    """Whether this process speaks and writes for all that torchrun started."""
    return process_count() == 1 or os.environ.get("RANK") == "0"


def is_lost_process(error):
    """Whether an exception means that another process of a group is gone."""
    text = str(error).lower()
    return process_count() > 1 and any(word in text for word in ("gloo", "nccl", "closed by peer", "connection reset"))


def local_rank():
    """This process's number on its own machine: which GPU it takes."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def restarted():
    """Whether torchrun started these processes anew because one had died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def may_restart():
    """Whether torchrun was given --max-restarts."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0
