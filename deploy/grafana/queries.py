# ruff: noqa: INP001 - deploy is no package of ours: this is run from a clone
"""What our panels ask, in PromQL: the parts of expressions that recur.

``$job`` and ``$model`` are the dashboards' variables; both choose everything at first.
"""

from __future__ import annotations

from typing import Final

JOB: Final = 'job=~"$job"'
OURS: Final = 'job=~"$job", model=~"$model"'
LOST: Final = 'outcome=~"overloaded|deadline|failed|not_ready"'
"""Requests without an answer that are the gateway's to answer for, as the recording rules count them."""
VARIANT: Final = "{{model}}/{{variant}}"


def rate(metric: str, by: str, where: str = OURS) -> str:
    """Return events per second of a counter, summed over instances."""
    return f"sum by ({by}) (rate({metric}{{{where}}}[$__rate_interval]))"


def ratio(part: str, whole: str, where: str = OURS) -> str:
    """Return one counter's rate over another's, for each variant."""
    return f"{rate(part, 'model, variant', where)} / {rate(whole, 'model, variant', where)}"


def quantile(share: float, histogram: str, by: str = "model, variant") -> str:
    """Return a quantile of a histogram, over all instances."""
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', f'{by}, le')})"


def met(window: str) -> str:
    """Return the share of all that was offered in a recorded window that was answered within its budget."""
    missed, offered = f"model:tiergate_missed:increase{window}", f"model:tiergate_offered:increase{window}"
    # What is recorded as offered without a model is all of the gateway's: only what was turned away is added.
    unread = f'(sum({missed}{{{OURS}, model=""}}) or vector(0))'
    return f'1 - sum({missed}{{{OURS}}}) / (sum({offered}{{{OURS}, model!=""}}) + {unread})'
