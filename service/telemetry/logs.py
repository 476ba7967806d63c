"""Structured logs: one JSON object (or one readable line) per event on standard error."""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
from typing import TYPE_CHECKING, Any, Final, Literal

from service.domain.errors import TiergateError
from service.domain.observer import SilentObserver

if TYPE_CHECKING:
    from service.domain.departure import Departure
    from service.domain.inference import Answer, InferenceRequest
    from service.domain.variants import ModelInfo, Variant

LOGGER: Final = logging.getLogger("tiergate")

_MOST_CHANGES: Final = 20


def set_up_logs(level: str, form: Literal["json", "text"]) -> None:
    """Send the program's log lines to standard error in the given form, those of libraries from warnings up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if form == "json" else _TextFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    LOGGER.setLevel(level.upper())


def log_event(level: int, event: str, **fields: object) -> None:
    """Log one event with its fields."""
    if LOGGER.isEnabledFor(level):
        LOGGER.log(level, event, extra={"fields": fields})


def log_refusal(protocol: str, request_id: str, error: BaseException) -> None:
    """Log a refused or failed request; an error that nobody foresaw comes with its traceback, for the operator only."""
    if isinstance(error, TiergateError):
        kind, message = type(error).__name__, str(error)
        log_event(logging.WARNING, "request refused", protocol=protocol, id=request_id, error=kind, message=message)
        return
    fields = {"protocol": protocol, "id": request_id, "error": type(error).__name__}
    LOGGER.error("request failed", exc_info=error, extra={"fields": fields})


def log_turned_away(protocol: str, count: int) -> None:
    """Log how many requests were turned away unread since the line before; one line each would cost more than they."""
    log_event(logging.WARNING, "requests turned away: the event loop cannot read more", protocol=protocol, count=count)


class LogObserver(SilentObserver):
    """Logs what happens to models, and each answered request where ``access_log`` is on.

    Refused requests are logged where they are refused, by ``log_refusal``, because some never get a model.
    """

    def __init__(self, *, access_log: bool = False) -> None:
        """Keep whether answered requests are logged."""
        self._access_log = access_log

    def request_finished(self, request: InferenceRequest, answer: Answer) -> None:
        """Log an answered request."""
        if self._access_log:
            log_event(
                logging.INFO,
                "request answered",
                protocol=request.protocol,
                id=request.id,
                model=request.model,
                variant=answer.variant,
                reason=answer.reason.value,
                total_ms=round(answer.total_s * 1e3, 3),
            )

    def model_loaded(self, model: ModelInfo) -> None:
        """Log a loaded model."""
        names = [variant.name for variant in model.variants]
        log_event(logging.INFO, "model loaded", model=model.name, version=model.version, variants=names)

    def model_unloaded(self, model: str) -> None:
        """Log a model that is gone."""
        log_event(logging.INFO, "model unloaded", model=model)

    def variant_held(self, model: str, variant: Variant, cause: str) -> None:
        """Log a variant that came into memory."""
        log_event(logging.INFO, "variant held", model=model, variant=variant.name, cause=cause)

    def variant_evicted(self, model: str, variant: str) -> None:
        """Log a variant that made room."""
        log_event(logging.INFO, "variant evicted", model=model, variant=variant)

    def variant_unproven(self, model: str, variant: str, treatment: str, why: str) -> None:
        """Log a variant that may be wrong on this machine, and what is done about it."""
        event = "variant is not known to be right on this machine"
        log_event(logging.WARNING, event, model=model, variant=variant, treatment=treatment, why=why)

    def variant_failed(self, model: str, variant: str, why: str) -> None:
        """Log a variant that cannot be used."""
        log_event(logging.ERROR, "variant failed", model=model, variant=variant, why=why)

    def lane_replaced(self, model: str, variant: str, stuck: int) -> None:
        """Log a run that hangs, and whose lane another thread serves."""
        event = "a run hangs: its lane is served by another thread"
        log_event(logging.ERROR, event, model=model, variant=variant, stuck_threads=stuck)

    def policy_applied(self, digest: str, changes: tuple[str, ...]) -> None:
        """Log a policy that is in force now, and the first fields that it changed."""
        log_event(logging.INFO, "policy applied", digest=digest, changed=len(changes), changes=changes[:_MOST_CHANGES])

    def policy_refused(self, why: str) -> None:
        """Log a policy that is not taken."""
        log_event(logging.ERROR, "policy refused: the one in force stays", why=why)

    def remotes_applied(self, digest: str, models: tuple[str, ...]) -> None:
        """Log a remotes file that is in force now."""
        log_event(logging.INFO, "remotes file applied", digest=digest, models=models)

    def remotes_refused(self, why: str) -> None:
        """Log a remotes file that is not taken."""
        log_event(logging.ERROR, "remotes file refused: what it said before stays in force", why=why)

    def region_changed(self, model: str, departures: tuple[Departure, ...]) -> None:
        """Log that traffic has left what the policy was tuned for, or is back."""
        if departures:
            figures = "; ".join(map(str, departures))
            log_event(logging.WARNING, "traffic has left what the policy was tuned for", model=model, figures=figures)
        else:
            log_event(logging.INFO, "traffic is what the policy was tuned for again", model=model)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return getattr(record, "fields", {})


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = dt.datetime.fromtimestamp(record.created, tz=dt.UTC)
        line: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = dt.datetime.fromtimestamp(record.created, tz=dt.UTC)
        fields = " ".join(f"{name}={_plain(value)}" for name, value in _fields(record).items())
        line = f"{moment:%H:%M:%S} {record.levelname.lower():7} {record.getMessage()} {fields}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _plain(value: object) -> str:
    text = str(value)
    # Whatever could end the line or steer a terminal is quoted and escaped.
    is_plain = bool(text) and text.isprintable() and " " not in text
    return text if is_plain else json.dumps(text)
