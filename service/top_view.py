"""How ``tiergate top`` looks: one frame as lines and tables that fit 80 columns."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from service.top import Frame, ModelRows, VariantRow

_BAR: Final = " ▏▎▍▌▋▊▉█"
_MIB: Final = 2**20
_WELL: Final = frozenset({"healthy", "restored"})
_MET_WELL: Final = 0.99
_MET_BADLY: Final = 0.95
_MOST_REASONS: Final = 4


def view(frame: Frame, url: str, problem: str = "") -> RenderableType:
    """Return a frame as something to print; ``problem`` says why it is not of now."""
    parts: list[RenderableType] = [_head(frame, url)]
    if problem:
        parts.append(Text(problem, style="bold red"))
    parts += [Text(""), _traffic(frame), _machine(frame)]
    if frame.refused:
        parts.append(_refused(frame))
    for model in frame.models:
        parts += [Text(""), _title(model), _variants(model)]
    if not frame.models:
        parts += [Text(""), Text("no model is loaded", style="yellow")]
    return Group(*parts)


def _head(frame: Frame, url: str) -> Text:
    moment = dt.datetime.fromtimestamp(frame.moment_s).astimezone()
    window = f"{_duration(frame.window_s)} since start" if frame.is_since_start else f"last {frame.window_s:.1f} s"
    line = _line(("tiergate top", "bold"), f"  {url}  {window}  {moment:%H:%M:%S}")
    if frame.policy:
        line.append(f"  policy {frame.policy[:6]}", style="dim")
    return line


def _traffic(frame: Frame) -> Text:
    return _line(
        "answered ",
        (f"{_rate(frame.rate_hz)}/s", "bold"),
        "   on time ",
        _met(frame.met_ratio),
        "   p50 ",
        (_ms(frame.p50_s), "bold"),
        " ms   p99 ",
        (_ms(frame.p99_s), "bold"),
        f" ms   inside {frame.inflight:.0f}",
    )


def _machine(frame: Frame) -> Text:
    loaded = sum(variant.memory_bytes for model in frame.models for variant in model.variants)
    line = _line("lanes ")
    shown = frame.lanes if len(frame.lanes) <= 4 else (sum(frame.lanes) / len(frame.lanes),)  # noqa: PLR2004 - they fit
    for busy in shown:
        line.append(_bar(busy, 4), style="cyan")
        line.append(f" {busy:4.0%}  ")
    if len(shown) < len(frame.lanes):
        line.append(f"of {len(frame.lanes)}  ")
    line.append(f" CPU {frame.cpu_ratio:.0%}  RSS {frame.rss_bytes / _MIB:.0f} MiB (variants {loaded / _MIB:.0f})")
    return line


def _refused(frame: Frame) -> Text:
    line = _line("no answer: ")
    line.append(", ".join(f"{outcome} {_rate(rate)}/s" for outcome, rate in frame.refused.items()), style="yellow")
    return line


def _title(model: ModelRows) -> Text:
    line = _line((model.name, "bold"), f"  {_rate(model.rate_hz)}/s  queued {model.queued:.0f}  on time ")
    line.append_text(_met(model.met_ratio))
    if model.regret is not None:
        line.append(f"  regret {model.regret:.4f}")
    most = sorted(model.reasons.items(), key=lambda item: -item[1])[:_MOST_REASONS]
    if most:
        line.append("\n")
        line.append(", ".join(f"{reason} {share:.1%}" for reason, share in most), style="dim")
    return line


def _variants(model: ModelRows) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("variant", no_wrap=True, min_width=8, max_width=20)
    table.add_column("share", no_wrap=True)
    for name, width in (("req/s", 5), ("p50 ms", 6), ("p99 ms", 6), ("met", 5), ("pred", 4), ("CPU", 4), ("MiB", 5)):
        table.add_column(name, justify="right", no_wrap=True, min_width=width)
    table.add_column("drift", no_wrap=True, min_width=7)
    for variant in model.variants:
        table.add_row(*_cells(variant), style="" if variant.share else "dim")
    return table


def _cells(variant: VariantRow) -> list[str | Text]:
    return [
        variant.name,
        Text(f"{_bar(variant.share, 3)}{variant.share:5.0%}"),
        _rate(variant.rate_hz),
        _ms(variant.p50_s),
        _ms(variant.p99_s),
        _met(variant.met_ratio),
        "-" if variant.predicted_ratio is None else f"{variant.predicted_ratio:.2f}",
        f"{variant.cpu_ratio:.0%}",
        f"{variant.memory_bytes / _MIB:.1f}" if variant.memory_bytes else "evicted",
        Text(variant.drift or "-", style="" if variant.drift in ("", *_WELL) else "bold red"),
    ]


def _line(*parts: str | tuple[str, str] | Text) -> Text:
    """Return a text that is cut off where it does not fit: a frame whose height changes cannot be read."""
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")


def _met(ratio: float | None) -> Text:
    if ratio is None:
        return Text("-")
    style = "green" if ratio >= _MET_WELL else "yellow" if ratio >= _MET_BADLY else "red"
    return Text("100%" if ratio == 1.0 else f"{ratio:.1%}", style=style)


def _bar(share: float, width: int) -> str:
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_BAR[rest] if rest else "")).ljust(width)


def _rate(rate_hz: float) -> str:
    return f"{rate_hz:,.0f}" if rate_hz >= 100 or not rate_hz else f"{rate_hz:.2g}" if rate_hz < 1 else f"{rate_hz:.1f}"  # noqa: PLR2004 - as many digits as say something


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    milliseconds = seconds * 1e3
    return f"{milliseconds:.0f}" if milliseconds >= 100 else f"{milliseconds:.3g}"  # noqa: PLR2004 - three digits


def _duration(seconds: float) -> str:
    if seconds < 120:  # noqa: PLR2004 - two minutes
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"  # noqa: PLR2004 - two hours
