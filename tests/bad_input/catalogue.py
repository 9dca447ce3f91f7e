"""What users and strangers put in: every case a scene that is spoilt, a script, and what must come of it.

Each section is a module; test_catalogue.py runs each case through the script's main, a sample also through the shell.
"""

import importlib

from scene import CASES

SECTIONS = (
    "broken_files",
    "no_pictures",
    "names",
    "pixels",
    "masks",
    "codings",
    "hostile_files",
    "checkpoints",
    "options",
    "outputs",
    "spacing_tables",
    "given_masks",
    "settings",
    "sequences",
    "annotations",
)
for section in SECTIONS:
    importlib.import_module(f"cases_{section}")

__all__ = ["CASES"]
