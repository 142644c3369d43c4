"""`python -m zignet` is the `zignet` command."""

import sys

from zignet.cli import main

if __name__ == "__main__":
    sys.exit(main())
