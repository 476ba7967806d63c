"""Gateway processes that live as pods do: started, ready, taken off the list, told to end, gone."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadtests.gateway import get_json
from loadtests.h2load import LoadError
from loadtests.processes import free_port

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from pathlib import Path

    from loadtests.rollout.endpoints import Endpoints

_POLL_S = 0.1
_START_S = 120.0
_KILLED_AFTER_S = 60.0
# What is counted is what an update loses. Gateways that start take the processors of those that serve, here as nowhere
# else; nobody is to be refused for that.
_PATIENT = "default: {default_budget_ms: 10000}\n"


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """What the chart sets, in seconds: the preStop sleep, the settings ``drain_grace_s`` and ``drain_timeout_s``."""

    pre_stop_s: float
    drain_grace_s: float
    drain_timeout_s: float


@dataclass(slots=True)
class Pod:
    """One running gateway; HTTP and gRPC addresses."""

    process: Process
    http: str
    grpc: str

    async def leave(self, endpoints: Endpoints, lifecycle: Lifecycle) -> tuple[int, float]:
        """Go as a pod goes; return the exit status, and how long it took after SIGTERM in seconds.

        The list changes and preStop begins at the same moment; nothing waits for those who have yet to hear.

        Raises:
            LoadError: It does not end.
        """
        endpoints.change(time.monotonic(), self.http, is_there=False)
        await asyncio.sleep(lifecycle.pre_stop_s)
        self.process.send_signal(signal.SIGTERM)
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(_KILLED_AFTER_S):
                status = await self.process.wait()
        except TimeoutError:
            raise LoadError(f"the gateway at {self.http} runs on {_KILLED_AFTER_S:.0f} s after SIGTERM") from None
        return status, time.monotonic() - began_s

    async def kill(self) -> None:
        """End it at once, if it still runs."""
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


async def start_pod(repository: Path, lifecycle: Lifecycle, work: Path) -> Pod:
    """Start a gateway with one lane and return it when it is ready; its policy and log lie in ``work``.

    Raises:
        LoadError: It ended, or was not ready in time.
    """
    http, grpc, admin = (free_port() for _ in range(3))
    log, policy = work / "gateways.log", work / "policy.yaml"
    policy.write_text(_PATIENT, encoding="utf-8")
    command = [sys.executable, "-m", "service.cli", "serve", str(repository), "--lanes", "1", "--no-pin-lanes"]
    for name, value in (
        ("http-port", http),
        ("grpc-port", grpc),
        ("admin-port", admin),
        ("policy", policy),
        ("drain-grace-s", lifecycle.drain_grace_s),
        ("drain-timeout-s", lifecycle.drain_timeout_s),
        ("log-level", "warning"),
    ):
        command += [f"--{name}", str(value)]
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    pod = Pod(process, f"127.0.0.1:{http}", f"127.0.0.1:{grpc}")
    try:
        await _until_ready(pod, log)
    except BaseException:  # cancelled among them: nobody else knows of it yet
        await pod.kill()
        raise
    return pod


async def _until_ready(pod: Pod, log: Path) -> None:
    end_s = time.monotonic() + _START_S
    while not await asyncio.to_thread(_is_ready, pod.http):
        if pod.process.returncode is not None or time.monotonic() > end_s:
            who = f"a gateway (pid {pod.process.pid}, of {os.getpid()})"
            raise LoadError(f"{who} did not become ready; see {log}")
        await asyncio.sleep(_POLL_S)


def _is_ready(address: str) -> bool:
    try:
        get_json(address, "/v2/health/ready")
    except LoadError:
        return False
    return True
