"""Recordings as a run would have left them."""

from __future__ import annotations

import numpy as np

from loadtests.gateway import Scrape
from loadtests.plan import RequestClass, Schedule
from loadtests.recording import Recording, Reply, Status
from loadtests.runner import Run, judge_lag

KINDS = (RequestClass("slow", 0.1), RequestClass("fast", 0.01, criticality="critical"))
LABELS = np.array([0, 1, 2, 3])
COUNT = 400


def recording(*, latency_s: float = 0.005, lag_s: float = 1e-5, seed: int = 0) -> Recording:
    """Return 400 requests, one each 10 ms: rows and kinds in turn.

    Of each twenty the first is shed, the second answered late (50 ms), the third wrong; the others take ``latency_s``.
    The first half is answered by ``full``, the other by ``distilled``, which was promised 90 % accuracy.
    """
    rng = np.random.default_rng(seed)
    places = np.arange(COUNT)
    schedule = Schedule(places.astype(np.float64) * 0.01, (places % 2).astype(np.uint8), (places % 4).astype(np.int32))
    found = Recording.blank(schedule)
    found.columns["sent_s"][:] = found.scheduled_s + lag_s
    for place in range(COUNT):
        taken_s = 0.05 if place % 20 == 1 else latency_s * float(rng.uniform(0.9, 1.1))
        done_s = float(found.scheduled_s[place]) + taken_s
        if place % 20 == 0:
            found.note(place, done_s, Status.SHED, None)
            continue
        answer = int(LABELS[place % 4]) if place % 20 != 2 else 9
        name, promised = ("full", 0.99) if place < COUNT // 2 else ("distilled", 0.9)
        reply = Reply(answer, name, "within_budget", 0.004, 0.001, 0.002, 0.005, promised)
        found.note(place, done_s, Status.OK, reply)
    return found


def run_of(found: Recording) -> Run:
    """Return a run with two readings of the gateway's metrics around it."""
    scrapes = (
        Scrape(0.0, 10.0, {"ok": 100.0, "overloaded": 0.0}, (0.5, 0.5), 0.0),
        Scrape(4.0, 12.0, {"ok": 480.0, "overloaded": 20.0}, (0.25, 0.75), 0.0),
    )
    return Run(found, judge_lag(found), scrapes)
