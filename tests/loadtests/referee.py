"""MLCommons' load generator in a process of its own: ``python referee.py URL RATE SECONDS FOLDER`` prints percentiles.

Its schedule and its clock are its own, written in C++; requests go out through our sender. It prints the latencies in
seconds of the percentiles 50, 90 and 99, as its log states them.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlperf_loadgen as lg
import numpy as np
import uvloop

from loadtests.clients.http import HttpSender
from loadtests.gateway import read_address
from tests.loadtests.servers import make_job

if TYPE_CHECKING:
    from loadtests.plan import Job
    from loadtests.recording import Reply, Status

PERCENTILES = {50: "50.00", 90: "90.00", 99: "99.00"}


class Forwarder:
    """Sends what the referee issues, from an event loop in a thread."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._ids: dict[int, int] = {}
        self._loop = uvloop.new_event_loop()
        self._sender: HttpSender | None = None
        self._is_open = threading.Event()
        threading.Thread(target=self._work, daemon=True).start()
        self._is_open.wait(20)

    def issue(self, queries: list[Any]) -> None:
        for query in queries:
            self._loop.call_soon_threadsafe(self._send, query.id, query.index)

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.create_task(self._open())
        self._loop.run_forever()

    async def _open(self) -> None:
        self._sender = HttpSender(self._job, self._done)
        await self._sender.open()
        self._is_open.set()

    def _send(self, query: int, row: int) -> None:
        assert self._sender is not None
        place = len(self._ids)
        self._ids[place] = query
        self._sender.send(place, 0, row)

    def _done(self, place: int, at_s: float, status: Status, reply: Reply | None) -> None:
        del at_s, reply
        assert status.name == "OK"
        lg.QuerySamplesComplete([lg.QuerySampleResponse(self._ids[place], 0, 0)])


def main() -> None:
    url, rate_hz, duration_s, folder = sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4])
    job = make_job(read_address(url), np.zeros(1))
    forwarder = Forwarder(replace(job, connections=64))
    settings = lg.TestSettings()
    settings.scenario, settings.mode = lg.TestScenario.Server, lg.TestMode.PerformanceOnly
    settings.server_target_qps = rate_hz
    settings.server_target_latency_ns = 10**9
    settings.min_duration_ms = settings.max_duration_ms = int(duration_s * 1000)
    settings.min_query_count = 1
    outputs = lg.LogOutputSettings()
    outputs.outdir, outputs.copy_summary_to_stdout = str(folder), False
    log = lg.LogSettings()
    log.log_output, log.enable_trace = outputs, False
    system = lg.ConstructSUT(forwarder.issue, lambda: None)
    rows = len(job.inputs)
    samples = lg.ConstructQSL(rows, rows, lambda _: None, lambda _: None)
    lg.StartTestWithLogSettings(system, samples, settings, log, "")
    lg.DestroyQSL(samples)
    lg.DestroySUT(system)
    summary = (folder / "mlperf_log_summary.txt").read_text()
    found = {
        percent: int(match[1]) / 1e9
        for percent, text in PERCENTILES.items()
        if (match := re.search(rf"^{text} percentile latency \(ns\)\s*:\s*(\d+)", summary, re.MULTILINE))
    }
    print(json.dumps(found))  # noqa: T201 - a program's output


if __name__ == "__main__":
    main()
