"""``tiergate top``: what a gateway does now, in a terminal."""

from __future__ import annotations

import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import argparse

    from rich.console import Console

    from service.telemetry.exposition import Scrape

_REFUSED: Final = 2
_DEFAULT_URL: Final = "http://127.0.0.1:8000"
_TIMEOUT_S: Final = 5.0
_SHORTEST_S: Final = 0.2
_MOST_BYTES: Final = 2**26


class NoMetrics(RuntimeError):
    """There is no gateway that tells its metrics; the message says what was found instead."""


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``top``."""
    parser = subparsers.add_parser(
        "top",
        help="show what a running gateway does, live",
        description=(
            "Show the rates, variants, budgets met, queues, lanes, memory and drift of a running gateway, read from "
            "its /metrics. Ctrl-C ends it."
        ),
    )
    parser.add_argument("url", nargs="?", default=_DEFAULT_URL, help="the gateway (default: %(default)s)")
    parser.add_argument("--interval-s", type=float, default=2.0, metavar="S", help="time between frames (default: 2)")
    parser.add_argument("--once", action="store_true", help="print one frame, of the time since the gateway started")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Show frames until interrupted; return 2 where there is no gateway."""
    from rich.console import Console

    from service.top import make_frame
    from service.top_view import view

    url = _address(parsed.url)
    try:
        if parsed.interval_s < _SHORTEST_S:
            raise NoMetrics(f"--interval-s is {parsed.interval_s:g}; allowed is from {_SHORTEST_S}")  # noqa: TRY301
        now = _read(url)
        if parsed.once:
            Console().print(view(make_frame(now), url))
        else:
            _show(Console(), url, now, parsed.interval_s)
    except NoMetrics as error:
        print(f"tiergate top: {error}", file=sys.stderr)
        return _REFUSED
    except KeyboardInterrupt:
        pass  # the way to leave
    return 0


def _show(console: Console, url: str, first: Scrape, interval_s: float) -> None:
    """Replace the frame until interrupted; a gateway that is gone is asked again."""
    from rich.live import Live

    from service.top import make_frame
    from service.top_view import view

    before, frame = first, make_frame(first)
    with Live(view(frame, url), console=console, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(interval_s)
            try:
                now = _read(url)
            except NoMetrics as error:
                live.update(view(frame, url, str(error)), refresh=True)
                continue
            frame, before = make_frame(now, before), now
            live.update(view(frame, url), refresh=True)


def _address(url: str) -> str:
    url = url if "://" in url else f"http://{url}"
    return url.rstrip("/").removesuffix("/metrics")


def _read(url: str) -> Scrape:
    from service.telemetry.exposition import read_scrape

    if not url.startswith(("http://", "https://")):
        raise NoMetrics(f"the address is '{url}'; it must start with http:// or https://")
    try:
        with urllib.request.urlopen(f"{url}/metrics", timeout=_TIMEOUT_S) as answer:  # noqa: S310 - checked above
            text = answer.read(_MOST_BYTES).decode("utf-8", "replace")
        found = read_scrape(text, time.time())
    except urllib.error.HTTPError as error:
        with error:
            raise NoMetrics(f"{url}/metrics answers {error.code} {error.reason}; is that a gateway?") from None
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise NoMetrics(f"no gateway answers at {url} ({reason}); is `tiergate serve` running there?") from None
    except ValueError:
        raise NoMetrics(f"{url}/metrics is not Prometheus's text format; is that a gateway?") from None
    if "tiergate_inflight_requests" not in found.samples:
        raise NoMetrics(f"{url}/metrics has no metrics of tiergate; is that a gateway?")
    return found
