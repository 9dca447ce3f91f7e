"""Claims: of several processes that want to write the same folder or file, one has it and the others are refused.

A claim is a file that names its process, created exclusively and removed at the end of the work. Its process holds a
lock of the operating system on it. If that process was killed, the lock is free: on the same machine the claim is then
taken over. On another machine a free lock proves nothing, because some network file systems lock per machine.
"""

import importlib
import json
import os
import platform
import secrets
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path

from sonogravity.common import files
from sonogravity.common.file_names import IN_USE
from sonogravity.common.messages import InputError, say

TRIES, PAUSE = 40, 0.05  # seconds, for a claim that is being made or removed
FAR = 1 << 20  # the byte locked on Windows, beyond the content, because a locked byte cannot be read
# Identifiers of a machine: of its last start, which containers share; of its installation, which a restart keeps.
MACHINE = {"boot": Path("/proc/sys/kernel/random/boot_id"), "machine": Path("/etc/machine-id")}
_HELD, _GUARD = set(), threading.Lock()  # POSIX locks exclude other processes only, so threads need these


def claim_folder(folder, remedy=""):
    """Return a context that has the folder to itself. Make the folder; if it is still empty at the end, remove it.

    remedy: what else to do than to wait, such as ", or give another --name". Entering the context raises InputError if
    another process has the folder.
    """
    return _claimed(folder / IN_USE, folder, remedy)


def claim_file(path, remedy=""):
    """Return a context that has a path to itself, by a claim beside it. See claim_folder."""
    return _claimed(path.with_name(f".{files.short(path.name)}{IN_USE}"), path, remedy)


def claim_name(name, given, enter):
    """Return (name, ExitStack with its claims). If the user has not given the name, take the first free one.

    enter(name, claims): enter the contexts of a name into the ExitStack ``claims``; raise InputError if it is taken.
    """
    number, tried = 1, name
    while True:
        with ExitStack() as claims:
            try:
                enter(tried, claims)
                return tried, claims.pop_all()
            except InputError:
                if given:
                    raise
        number += 1
        tried = f"{name}_{number}"


@contextmanager
def _claimed(file, path, remedy):
    file = files.absolute(file.parent) / file.name
    made = [each for each in file.parents if not each.exists()]
    try:
        with _GUARD:
            if file in _HELD:
                raise _refusal(path, _describe_self(), True, file, remedy)
            descriptor = _take(file, path, remedy)
            _HELD.add(file)
        try:
            yield
        finally:
            with _GUARD:
                _HELD.discard(file)
                _remove(descriptor, file)
    finally:
        for each in made:
            with suppress(OSError):  # holds files now, or another process uses it
                each.rmdir()


def _take(file, path, remedy):
    """Return the descriptor of a claim of this process. Raise InputError if another process has the claim."""
    own, owner, locked = _describe_self(), None, None
    for _ in range(TRIES):
        file.parent.mkdir(parents=True, exist_ok=True)
        if (descriptor := _create(file, own)) is not None:
            return descriptor
        try:
            descriptor = os.open(file, os.O_RDWR if os.access(file, os.W_OK) else os.O_RDONLY)
        except FileNotFoundError:  # removed just now
            continue
        before, locked, owner = owner, _lock(descriptor), _read(descriptor)
        if not _is_at(descriptor, file):
            owner = None
        elif owner and owner == before:  # seen twice: not being taken over
            if locked and _same_machine(owner, own):
                _remove(descriptor, file)  # under its lock, so that no other process removes a newer claim
                say(f"{path}: process {owner['process']}, which used it since {owner['since']}, ended unexpectedly")
                continue
            os.close(descriptor)
            break
        os.close(descriptor)
        time.sleep(PAUSE)
    raise _refusal(path, owner, locked is False, file, remedy)


def _describe_self():
    known = {name: _content(path) for name, path in MACHINE.items()}
    since = datetime.now().astimezone().isoformat(" ", "seconds")
    return {"host": platform.node(), **known, "process": os.getpid(), "since": since}


def _content(path):
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _same_machine(owner, own):
    """Return whether two processes ran on one machine: since the same start, or before and after a restart.

    The installation alone proves nothing, because copies of a virtual machine share it.
    """
    if own["boot"] and owner.get("boot") == own["boot"]:
        return True
    return (owner["host"], owner.get("machine")) == (own["host"], own["machine"])


def _refusal(path, owner, certain, file, remedy):
    who = f"process {owner['process']} on {owner['host']}, since {owner['since']}" if owner else "an unknown process"
    # If the lock is held, the process runs, and to delete its claim would be wrong.
    delete = "" if certain else f"; if that process no longer runs, delete {file}"
    return InputError(f"{path}: is in use by {who}; wait until it has ended{remedy}{delete}")


def _create(file, own):
    """Return the descriptor of a new claim, or None if there is one. It is locked before another process can see it."""
    if os.name != "posix":  # an open file cannot lose its first name there
        return _create_without_links(file, own)
    beside = file.with_name(f"{file.name}.{secrets.token_hex(4)}.partial")
    try:
        descriptor = _locked(beside, own)
    except FileNotFoundError:  # the folder was removed just now
        return None
    try:
        os.link(beside, file)
        return descriptor
    except FileExistsError:
        os.close(descriptor)
        return None
    except OSError:  # a file system without links
        os.close(descriptor)
        return _create_without_links(file, own)
    finally:
        beside.unlink(missing_ok=True)


def _create_without_links(file, own):
    """Do the same as _create. The claim is empty until it is locked, and an empty one is not taken over."""
    try:
        return _locked(file, own)
    except (FileExistsError, FileNotFoundError):
        return None


def _locked(file, own):
    """Return the descriptor of a new file that is locked and then written."""
    descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR)
    _lock(descriptor)
    os.write(descriptor, json.dumps(own).encode())
    return descriptor


def _read(descriptor):
    """Return what a claim says of its process, or None if it is not readable."""
    try:
        owner = json.loads(os.read(descriptor, 4096))
    except ValueError:
        return None
    return owner if isinstance(owner, dict) and {"host", "process", "since"} <= set(owner) else None


def _lock(descriptor):
    """Return whether this process has the lock now; None if the file system has no locks."""
    try:
        if os.name == "posix":
            fcntl = importlib.import_module("fcntl")
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock not inherited by worker processes
        else:
            msvcrt = importlib.import_module("msvcrt")
            os.lseek(descriptor, FAR, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    finally:
        os.lseek(descriptor, 0, os.SEEK_SET)
    return True


def _is_at(descriptor, file):
    """Return whether a descriptor is that of the file which now has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(file))
    except OSError:  # most often because it was removed
        return False


def _remove(descriptor, file):
    """Remove a claim and close it. On Windows an open file cannot be removed, so it is closed first."""
    own = _is_at(descriptor, file)
    if os.name != "posix":
        os.close(descriptor)
    if own:
        with suppress(OSError):
            os.unlink(file)
    if os.name == "posix":
        os.close(descriptor)
