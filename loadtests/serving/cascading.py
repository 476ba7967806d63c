"""Cascades on the real gateway: the same arrivals with and without them, interleaved.

A cascade is a step of the ladder that costs more than its compute time: the event loop looks at a margin and lets a
request wait twice. So beside the accuracy counts what the gateway's whole process computed for an on-time correct
answer. Two rounds; rows, budgets and arrivals are the same in all runs of a trace and load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from loadtests.serving.contenders import OURS_NAME, PLAIN
from loadtests.serving.gateways import gateways, play_on
from loadtests.serving.real import LANES, slice_of
from loadtests.serving.setting import full_rate_hz
from service.domain.policy_file import ModelPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtests.serving.gateways import Played
    from loadtests.serving.setting import Setting

_LOADS: Final = (0.5, 1.0)
_ROUNDS: Final = 2


def run_cascades(setting: Setting, say: Callable[[str], None]) -> dict[str, Any]:
    """Play every trace at half load and at load 1 on both gateways; return each run's figures."""
    policies = {OURS_NAME: ModelPolicy(cascades=True), PLAIN: ModelPolicy(cascades=False)}
    rate_hz = full_rate_hz(setting.fleet(lanes=LANES))
    rows = []
    with gateways(setting, policies) as sites:
        for trace, times_s in setting.arrivals().items():
            for load in _LOADS:
                arrivals = slice_of(setting, times_s, load * rate_hz)
                for _ in range(_ROUNDS):
                    for name, site in sites.items():
                        played = play_on(site, setting, arrivals)
                        figures = {**played.figures(), "cpu_s_per_good_answer": cpu_s_per_good_answer(played)}
                        rows.append({"trace": trace, "load": load, "policy": name, **figures})
                say(f"cascades: {trace} at load {load:g}")
    return {"budget_s": setting.budget(), "full_hz": rate_hz, "rows": rows}


def cpu_s_per_good_answer(played: Played) -> float | None:
    """Return the CPU-seconds of the gateway's process over a run by on-time correct answer, ``None`` if not known."""
    scrapes, judged = played.run.scrapes, played.judged
    if judged.is_correct is None or not scrapes or scrapes[0].cpu_s is None or scrapes[-1].cpu_s is None:
        return None
    good = int((judged.is_on_time & judged.is_correct).sum())
    return (scrapes[-1].cpu_s - scrapes[0].cpu_s) / good if good else None
