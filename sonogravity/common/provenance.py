"""The origin of a result: versions, commit, and a digest of the weights."""

import hashlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version

import torch

from sonogravity.common import folders

PACKAGES = ("sonogravity", "torch", "torchvision", "numpy", "pillow", "scipy", "pandas", "openpyxl")


def describe_versions():
    """Return the versions, the platform and the number of threads, for settings.json."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found | {"threads": torch.get_num_threads()}


def commit():
    """Return the commit of the repository that the code runs from, with ``+`` if files changed; None without git."""
    git = ("git", "-C", os.fspath(folders.ROOT))
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def digest_of_weights(model):
    """Return a hexadecimal digest that changes if any weight changes, or any constant beside the weights."""
    whole = hashlib.blake2b(digest_size=16)
    for key, value in (model.state_dict() | dict(model.named_buffers())).items():
        whole.update(key.encode())
        whole.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return whole.hexdigest()
