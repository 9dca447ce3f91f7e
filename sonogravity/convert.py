"""Write clips, cines, stacks and volumes as plain images: ``python -m sonogravity.convert SOURCE --output DIR``.

See commands/convert.py.
"""

import sys

from sonogravity.commands.convert import main

if __name__ == "__main__":
    sys.exit(main())
