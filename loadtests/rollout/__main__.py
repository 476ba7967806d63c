"""``python -m loadtests.rollout``."""

import sys

from loadtests.rollout.cli import main

sys.exit(main())
