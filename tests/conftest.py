"""What holds for every test."""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings

# Whoever runs the suite under nohup, or in the background of a script, has it ignore these, and so would all that it
# starts: programs that are to end by them.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

# The threads of a build wait for each other thousands of times. Where other processes want their cores they must not
# spin meanwhile: a training of seconds then takes minutes. Said before anything loads torch, and to every child.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# An example may take long on a busy machine, and so may making one: no test of ours judges by the clock. The examples
# are the same in every run, so that a change fails or passes wherever it is tried.
settings.register_profile(
    "untimed", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile("untimed")
