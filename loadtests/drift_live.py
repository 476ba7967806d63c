"""Drift watched in a real gateway: what shadow runs cost live traffic, and how soon a damaged variant is out.

``python -m loadtests.drift_live`` (``make bench-drift-live``) serves a built model and asks one of its small variants
for rows that no build has seen, at a steady rate. First it asks until the variant is no longer new to the watch, which
looks at new ones more often; what follows is the cost from then on. The watch is switched on and off in turns, by the
policy (``most: quarantine`` and ``most: none``), so that both are measured in one process and in the same minutes; the
differences are of neighbouring turns. CPU time is the kernel's account of the process's threads, those of the idle
class apart, which are the shadow runs. Then the weights of each small variant are damaged in turn, and the time counts
from the first request that the damaged one answers to its quarantine. All traffic stays on loopback. On a busy machine
there is less spare time for shadow runs, and a quarantine takes longer.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from loadtests.drift.damage import flip_bits
from loadtests.h2load import LoadError
from loadtests.intervals import percentile_interval
from loadtests.marked_page import Marks, MarksMissing, table
from loadtests.overhead import find_model
from loadtests.processes import Command, free_port, running
from loadtests.record import describe_run
from service.interrupts import heard_as_interrupts
from service.policy.sampling import FEW
from variants.manifest import MANIFEST_FILE, ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PROGRAM: Final = "python -m loadtests.drift_live"
MARKS: Final = Marks("bench-drift-live")
_RESULTS: Final = Path(__file__).parent / "results" / "drift_live.json"
_RATES_HZ: Final = (50.0, 400.0)
_QUARANTINE_HZ: Final = 50.0
_MOST_CPU, _MOST_S, _GIVE_UP_S = 0.01, 30.0, 60.0
_SETTLE_S: Final = 1.2
"""Shares follow the policy within a second."""
_SOON_HZ, _SOON_S = 200.0, 2.0
"""How a new variant is asked until it is known: the watch takes two of its answers a second, however many come."""
_LOOK_EVERY_S: Final = 0.1
_BYTES_PER_FLIP: Final = 16
"""One flipped bit for so many bytes of the file: about one weight in four, or in sixteen of an 8-bit file."""
_IDLE_CLASS: Final = "5"
_OK, _OVERLOADED = 200, 429


@dataclass(frozen=True, slots=True)
class Turn:
    """One stretch of traffic with the watch on or off: shares of all cores 0..1, and seconds."""

    cpu: float
    shadow_cpu: float
    p99_s: float


class Live:
    """One gateway, asked row after row over one connection; the process's threads are looked at from outside."""

    def __init__(self, pid: int, ports: Sequence[int], model: str, bodies: Sequence[bytes]) -> None:
        """Connect."""
        self._pid = pid
        self._path = f"/v2/models/{model}"
        self._bodies = bodies
        self._public, self._admin = (HTTPConnection("127.0.0.1", port, timeout=30.0) for port in ports)
        self._sent = 0
        self.refused = 0

    def watch(self, most: str) -> None:
        """Switch the watch by the policy, and wait until it is followed."""
        policy = {"schema_version": 1, "default": {"drift": {"most": most}, "default_budget_ms": 1000.0}}
        _ask(self._admin, "PUT", "/v2/policy", json.dumps(policy).encode())
        time.sleep(_SETTLE_S)

    def settle(self, variant: str) -> int:
        """Ask until a variant was compared as often as one that is known, or a minute has passed; return how often."""
        self.watch("quarantine")
        end_s = time.perf_counter() + _GIVE_UP_S
        while (found := int(self.drift(variant)["shadow_samples"])) < FEW and time.perf_counter() < end_s:
            self.turn(_SOON_HZ, _SOON_S)
        return found

    def drift(self, variant: str) -> dict[str, Any]:
        """Return what is known of a variant."""
        document = json.loads(_ask(self._public, "GET", f"{self._path}/drift"))
        found: dict[str, Any] = next(item for item in document["variants"] if item["variant"] == variant)
        return found

    def turn(self, rate_hz: float, duration_s: float) -> Turn:
        """Send at a rate for a while."""
        waits_s: list[float] = []
        cpu_s, shadow_s = self._used_s()
        began_s = due_s = time.perf_counter()
        while due_s < began_s + duration_s:
            waits_s.append(self.send(due_s))
            due_s += 1.0 / rate_hz
        elapsed_s = (time.perf_counter() - began_s) * len(os.sched_getaffinity(0))
        cpu_s, shadow_s = (now - before for now, before in zip(self._used_s(), (cpu_s, shadow_s), strict=True))
        return Turn(cpu_s / elapsed_s, shadow_s / elapsed_s, float(np.percentile(waits_s, 99.0)))

    def send(self, due_s: float) -> float:
        """Send one request when it is due; return how long its answer took since then, in seconds."""
        time.sleep(max(0.0, due_s - time.perf_counter()))
        self._sent += 1
        body = self._bodies[self._sent % len(self._bodies)]
        status, content = _send(self._public, "POST", f"{self._path}/infer", body)
        if status == _OVERLOADED:
            self.refused += 1
        elif status != _OK:
            raise LoadError(f"an inference answered {status}: {content[:200].decode(errors='replace')}")
        return time.perf_counter() - due_s

    def _used_s(self) -> tuple[float, float]:
        """Return the CPU seconds of all threads so far, and of those of the idle class."""
        total_s = idle_s = 0.0
        for task in Path(f"/proc/{self._pid}/task").iterdir():
            with contextlib.suppress(OSError):  # a thread may have ended
                used_s = int((task / "schedstat").read_text().split()[0]) / 1e9
                total_s += used_s
                if (task / "stat").read_text().rsplit(")", 1)[1].split()[38] == _IDLE_CLASS:
                    idle_s += used_s
        return total_s, idle_s


@heard_as_interrupts()
def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write results and page; return 1 where a bar is missed, 2 where nothing could be measured."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    parsed = _parse(given)
    try:
        folder, manifest = find_model(parsed.repository, parsed.model)
        with np.load(parsed.rows) as stored:
            rows = np.asarray(stored["inputs"], dtype=np.float32)
        small = [item.name for item in manifest.published if item.tier != "full" and item.unpacked is None]
        variant = parsed.variant or small[-1]
        document: dict[str, Any] = describe_run(_PROGRAM, given) | {"model": parsed.model, "variant": variant}
        bodies = _bodies(rows, manifest.inputs[0].name, variant)
        with _serving(parsed.repository, parsed.model, bodies) as live:
            document["samples_before"] = live.settle(variant)
            document["costs"] = [_cost(live, rate_hz, parsed) for rate_hz in _RATES_HZ]
            document |= {"shadow_runs": live.drift(variant)["shadow_runs"], "refused": live.refused}
        document["quarantines"] = [
            _quarantine(parsed, folder, name, _bodies(rows, manifest.inputs[0].name, name)) for name in small
        ]
        parsed.output.parent.mkdir(parents=True, exist_ok=True)
        parsed.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        parts = _page(document)
        print("\n\n".join(parts))  # noqa: T201 - a command line
        if parsed.docs is not None:
            MARKS.rewrite(parsed.docs, parts)
    except (LoadError, ManifestError, MarksMissing, OSError) as error:
        print(f"drift_live: {error}", file=sys.stderr)  # noqa: T201 - as above
        return 2
    return 0 if is_kept(document) else 1


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=_PROGRAM, description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repository", type=Path, default=Path("repository"))
    parser.add_argument("--model", default="digits")
    parser.add_argument("--rows", type=Path, default=Path("repository/digits-rows.npz"), help="an .npz with `inputs`")
    parser.add_argument("--variant", help="the variant that is asked; the last published one by default")
    parser.add_argument("--rounds", type=int, default=12, help="pairs of turns at each rate")
    parser.add_argument("--turn-s", type=float, default=4.0)
    parser.add_argument("--output", type=Path, default=_RESULTS)
    parser.add_argument("--docs", type=Path, help="a page with the bench's marks")
    return parser.parse_args(arguments)


def _bodies(rows: np.ndarray[Any, Any], name: str, variant: str) -> list[bytes]:
    tensor = {"name": name, "datatype": "FP32", "shape": [1, *rows.shape[1:]]}
    return [
        json.dumps({"inputs": [{**tensor, "data": row.ravel().tolist()}], "parameters": {"variant": variant}}).encode()
        for row in rows
    ]


@contextlib.contextmanager
def _serving(repository: Path, model: str, bodies: Sequence[bytes]) -> Iterator[Live]:
    ports = [free_port() for _ in range(3)]
    command = [sys.executable, "-m", "service.cli", "serve", str(repository), "--log-level", "error"]
    for kind, port in zip(("http", "grpc", "admin"), ports, strict=True):
        command += [f"--{kind}-port", str(port)]
    with running(Command(command, ports[0], "/v2/health/ready")) as process:
        yield Live(process.pid, (ports[0], ports[2]), model, bodies)


def _cost(live: Live, rate_hz: float, parsed: argparse.Namespace) -> dict[str, Any]:
    turns: dict[str, list[Turn]] = {"none": [], "quarantine": []}
    for number in range(parsed.rounds):
        for most in ("none", "quarantine") if number % 2 else ("quarantine", "none"):
            live.watch(most)
            turns[most].append(live.turn(rate_hz, parsed.turn_s))
    return {"rate_hz": rate_hz, **compare(turns["quarantine"], turns["none"])}


def compare(watched: Sequence[Turn], unwatched: Sequence[Turn]) -> dict[str, Any]:
    """Return what the watch adds: medians of differences of neighbouring turns, with 95 % intervals."""
    pairs = list(zip(watched, unwatched, strict=True))
    return {
        "shadow_cpu": statistics.median(on.shadow_cpu for on in watched),
        "added_cpu": _median([on.cpu - off.cpu for on, off in pairs]),
        "p99_s": statistics.median(off.p99_s for off in unwatched),
        "added_p99_s": _median([on.p99_s - off.p99_s for on, off in pairs]),
    }


def _quarantine(parsed: argparse.Namespace, folder: Path, variant: str, bodies: Sequence[bytes]) -> dict[str, Any]:
    """Damage a variant, and return how long it took until it was out; ``None`` where it was not within a minute."""
    with tempfile.TemporaryDirectory() as made:
        copy = Path(made) / "repository" / parsed.model / folder.name
        shutil.copytree(folder, copy)
        _damage(copy, variant)
        with _serving(copy.parent.parent, parsed.model, bodies) as live:
            began_s = due_s = look_s = time.perf_counter()
            found = live.drift(variant)
            while found["state"] != "quarantined" and due_s < began_s + _GIVE_UP_S:
                live.send(due_s)
                due_s += 1.0 / _QUARANTINE_HZ
                if due_s >= look_s:
                    look_s += _LOOK_EVERY_S
                    found = live.drift(variant)
            taken_s = time.perf_counter() - began_s if found["state"] == "quarantined" else None
            return {"variant": variant, "taken_s": taken_s, "samples": found["shadow_samples"], **found["shadow_runs"]}


def _damage(folder: Path, variant: str) -> None:
    """Flip bits in a variant's file, and have the manifest say the damaged file's digest, as of a broken build."""
    manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    described = next(item for item in manifest["variants"] if item["name"] == variant)
    file = folder / described["file"]
    content = file.read_bytes()
    damaged = flip_bits(content, len(content) // _BYTES_PER_FLIP, seed=0)
    file.write_bytes(damaged)
    described["sha256"] = hashlib.sha256(damaged).hexdigest()
    described["size"]["file_bytes"] = len(damaged)
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest), encoding="utf-8")


def _median(values: Sequence[float]) -> dict[str, float]:
    low, high = percentile_interval(np.sort(np.array(values)), 0.5)
    return {"median": statistics.median(values), "low": low, "high": high}


def is_kept(document: dict[str, Any]) -> bool:
    """Tell whether shadow runs are cheap, add nothing to the p99 that can be seen, and damage is out in time."""
    costs = document["costs"]
    is_cheap = all(found["shadow_cpu"] <= _MOST_CPU and found["added_p99_s"]["low"] <= 0.0 for found in costs)
    return is_cheap and all((found["taken_s"] or _GIVE_UP_S) <= _MOST_S for found in document["quarantines"])


def _page(document: dict[str, Any]) -> list[str]:
    machine = document["machine"]
    head = (
        f"`{document['command']}`, commit {document['commit']}, {document['date']}, {machine['cpu']}, "
        f"{machine['cores']} cores; {document['model']}, asked of `{document['variant']}`, "
        f"{document['refused']} requests refused, {document['samples_before']} shadow samples before. "
        "CPU in shares of all cores; "
        "what the watch adds is the median over pairs of turns with it and without, with its 95 % interval."
    )
    costs = [_cost_row(found) for found in document["costs"]]
    header = ("requests/s", "CPU of shadow runs", "CPU added by all of the watch", "p99 without", "p99 added")
    out = [
        (f"`{found['variant']}`", _taken(found["taken_s"]), str(found["samples"]), str(found["busy"]))
        for found in document["quarantines"]
    ]
    later = f"Quarantine of a variant with damaged weights, {_QUARANTINE_HZ:.0f} requests a second, from the first one:"
    titles = ("damaged", "quarantined after", "shadow samples", "put off for want of spare time")
    return [head, "\n".join(table(header, costs, left=0)), later, "\n".join(table(titles, out, left=1))]


def _taken(taken_s: float | None) -> str:
    return "not within a minute" if taken_s is None else f"{taken_s:.1f} s"


def _cost_row(found: dict[str, Any]) -> tuple[str, ...]:
    shadow, p99 = f"{100 * found['shadow_cpu']:.2f} %", f"{1e3 * found['p99_s']:.2f} ms"
    added = _span(found["added_cpu"], 100.0, " %"), _span(found["added_p99_s"], 1e3, " ms")
    return f"{found['rate_hz']:.0f}", shadow, added[0], p99, added[1]


def _span(found: dict[str, float], scale: float, unit: str) -> str:
    return f"{scale * found['median']:+.2f}{unit} ({scale * found['low']:+.2f} to {scale * found['high']:+.2f})"


def _ask(connection: HTTPConnection, method: str, path: str, body: bytes = b"") -> bytes:
    status, content = _send(connection, method, path, body)
    if status != _OK:
        raise LoadError(f"{method} {path} answered {status}: {content[:200].decode(errors='replace')}")
    return content


def _send(connection: HTTPConnection, method: str, path: str, body: bytes) -> tuple[int, bytes]:
    connection.request(method, path, body, {"content-type": "application/json"})
    reply = connection.getresponse()
    return reply.status, reply.read()


if __name__ == "__main__":
    sys.exit(main())
