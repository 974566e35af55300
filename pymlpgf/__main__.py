"""``python -m pymlpgf`` is the command ``pymlpgf``."""

import sys

from .commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
