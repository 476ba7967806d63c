"""The answer sheet: what every variant says of every labelled row, asked of a real gateway with the variant pinned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadtests import gateway
from loadtests.answer_sheet import ask_all, save_sheet
from loadtests.trial import Site

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtests.serving.setting import Setting


def run_sheet(setting: Setting, say: Callable[[str], None]) -> dict[str, Any]:
    """Ask, save the sheet where the other parts look for it, and return each variant's share of right answers."""
    setting.work.mkdir(parents=True, exist_ok=True)
    with gateway.running_gateway(setting.repository, None) as address:
        found = ask_all(Site(address, setting.repository, None), setting.model, setting.inputs)
    save_sheet(found, setting.sheet)
    rows = found.rows_correct.shape[1]
    say(f"sheet: {rows} rows by {len(found.variants)} variants")
    accuracy = {name: float(right.mean()) for name, right in zip(found.variants, found.rows_correct, strict=True)}
    return {"rows": rows, "accuracy": accuracy}
