"""Worker process: ``python worker.py MODULE FUNCTION`` builds a setting and answers questions (see common.Worker)."""

import importlib
import sys

import common

if __name__ == "__main__":
    module, function = sys.argv[1:]
    common.serve(getattr(importlib.import_module(module), function))
