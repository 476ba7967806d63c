from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from loadtests.h2load import LoadError
from loadtests.processes import Command, free_port, running

if TYPE_CHECKING:
    from pathlib import Path

LISTEN = "import socket,sys;s=socket.create_server(('127.0.0.1',int(sys.argv[1])))\n"
SLEEP = "import time;time.sleep(600)"
DAEMON = f"import subprocess,sys\np=subprocess.Popen([sys.executable,'-c','{SLEEP}'],start_new_session=True)\n"
WRITE = "open(sys.argv[2],'w').write(str(p.pid))\n"
WAIT = "while True: s.accept()\n"


def test_daemon_that_left_its_session_ends_with_the_server(tmp_path: Path) -> None:
    port, told = free_port(), tmp_path / "pid"
    code = DAEMON + WRITE + LISTEN + WAIT

    with running(Command([sys.executable, "-c", code, str(port), str(told)], port)) as server:
        daemon = psutil.Process(int(told.read_text()))
        assert daemon.is_running()

    assert not server.is_running()
    assert not daemon.is_running() or daemon.status() == psutil.STATUS_ZOMBIE  # none reaps it where init does not


def test_server_ends_when_the_block_fails() -> None:
    port = free_port()
    with (
        pytest.raises(KeyboardInterrupt),
        running(Command([sys.executable, "-c", LISTEN + WAIT, str(port)], port)) as server,
    ):
        raise KeyboardInterrupt

    assert not server.is_running()


def test_server_that_ends_at_once_is_reported_with_its_words(tmp_path: Path) -> None:
    port = free_port()
    command = Command([sys.executable, "-c", "raise SystemExit('no such model')"], port, log=tmp_path / "log")

    with pytest.raises(LoadError, match=r"ended with status 1 \(port \d+\):\nno such model"), running(command):
        pass


def test_server_that_never_listens_is_given_up(tmp_path: Path) -> None:
    port = free_port()
    command = Command([sys.executable, "-c", SLEEP], port, log=tmp_path / "log", start_s=0.2, stop_s=5.0)

    with pytest.raises(LoadError, match="was not ready in time"), running(command):
        pass
