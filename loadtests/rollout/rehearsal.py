"""A rolling update from the first pod to the last, again and again, until so many pods have been replaced."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from loadtests.gateway import find_target, read_address
from loadtests.h2load import LoadError
from loadtests.rollout.endpoints import Endpoints
from loadtests.rollout.pods import Lifecycle, Pod, start_pod
from loadtests.rollout.traffic import Question, Traffic

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_PEAK_S = 3.0
_AT_ONCE = 16
LIFECYCLE = Lifecycle(pre_stop_s=5.0, drain_grace_s=5.0, drain_timeout_s=30.0)
"""The chart's defaults."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is rehearsed. ``surge`` pods are replaced at a time; ``lag_s`` is how late a viewer may hear of a change."""

    repository: Path
    model: str
    work: Path
    pods: int = 3
    restarts: int = 200
    surge: int = 1
    viewers: int = 4
    lag_s: float = 10.0
    lifecycle: Lifecycle = LIFECYCLE
    load_ratio: float = 0.7
    rate_hz: float | None = None
    seed: int = 0


async def rehearse(setting: Setting, say: Callable[[str], None]) -> dict[str, Any]:
    """Return what became of every request and of every pod.

    Raises:
        LoadError: A gateway does not start, or fails before anything is replaced.
    """
    rng = random.Random(setting.seed)  # noqa: S311 - a rehearsal, no secret
    endpoints = Endpoints(setting.viewers, setting.lag_s, rng)
    grpc_of: dict[str, str] = {}
    pods: list[Pod] = []
    setting.work.mkdir(parents=True, exist_ok=True)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(_kill, pods)
        for _ in range(setting.pods):
            pods.append(await _new_pod(setting, grpc_of))
            endpoints.begin(pods[-1].http)
        target = await asyncio.to_thread(find_target, read_address(pods[0].http), setting.model, "http-json")
        traffic = Traffic(endpoints, grpc_of, Question(setting.model, target.input_name, target.row_shape), rng)
        stack.push_async_callback(traffic.close)
        peak_hz = await traffic.peak_hz(_AT_ONCE, _PEAK_S)
        rate_hz = setting.rate_hz or setting.load_ratio * peak_hz
        say(f"{setting.pods} gateways answer {peak_hz:.0f} requests/s; {rate_hz:.0f}/s are sent from now on")
        began_s = time.monotonic()
        sending = asyncio.create_task(traffic.run(rate_hz))
        exits = await _replace_all(setting, endpoints, pods, grpc_of, say)
        traffic.end()
        await sending
    counts = traffic.counts
    return {
        "pods": setting.pods,
        "restarts": len(exits),
        "lag_s": setting.lag_s,
        "lifecycle": asdict(setting.lifecycle),
        "peak_hz": peak_hz,
        "rate_hz": rate_hz,
        "took_s": time.monotonic() - began_s,
        "sent": dict(counts.sent),
        "failed": dict(counts.failed),
        "first_failures": counts.words,
        "bad_exits": [status for status, _ in exits if status],
        "longest_exit_s": max(took_s for _, took_s in exits),
    }


async def _replace_all(
    setting: Setting, endpoints: Endpoints, pods: list[Pod], grpc_of: dict[str, str], say: Callable[[str], None]
) -> list[tuple[int, float]]:
    turn = asyncio.Semaphore(setting.surge)

    async def replace(number: int) -> None:
        async with turn:
            new = await _new_pod(setting, grpc_of)
            old = pods.pop(0)
            pods.append(new)
            endpoints.change(time.monotonic(), new.http, is_there=True)
            old_pods.append(old)
            # As a Deployment does: the next one starts when this one is ready, not when the old one is gone.
            leaving.append(asyncio.create_task(old.leave(endpoints, setting.lifecycle)))
        if number % 10 == 0:
            say(f"{number} of {setting.restarts} replaced")

    leaving: list[asyncio.Task[tuple[int, float]]] = []
    old_pods: list[Pod] = []
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(1, setting.restarts + 1):
                group.create_task(replace(number))
        return await asyncio.gather(*leaving)
    except ExceptionGroup as errors:
        raise LoadError(str(errors.exceptions[0])) from None
    finally:
        await _kill(old_pods)


async def _kill(pods: list[Pod]) -> None:
    await asyncio.gather(*(pod.kill() for pod in pods))


async def _new_pod(setting: Setting, grpc_of: dict[str, str]) -> Pod:
    pod = await start_pod(setting.repository, setting.lifecycle, setting.work)
    grpc_of[pod.http] = pod.grpc
    return pod
