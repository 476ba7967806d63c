"""``python -m loadtests.scaling``."""

import sys

from loadtests.scaling.cli import main

if __name__ == "__main__":
    sys.exit(main())
