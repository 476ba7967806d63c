"""``python -m loadtests.simulator``."""

import sys

from loadtests.simulator.cli import main

sys.exit(main())
