"""Compare evaluated runs on the same files: ``python -m sonogravity.compare RUN RUN`` (see commands/compare.py)."""

import sys

from sonogravity.commands.compare import main

if __name__ == "__main__":
    sys.exit(main())
