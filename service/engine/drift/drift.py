"""Drift while the gateway serves: one thread that watches, keeps, compares, and has routing act.

The event loop's part is small: the taps take references (``taps``), and verdicts are put in force between two requests
and two decisions, as a policy is. Everything else happens here: four times a second the thread takes what has gathered,
and whoever asks something (labels, a report, an action by hand) wakes it. Its state is its own; others get answers, or
the reports that it makes anew each second.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from math import inf
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, TypeVar

from service.domain.errors import NotSupported, VariantNotFound
from service.engine.copies import give_back
from service.engine.drift.keeping import Keeping
from service.engine.drift.reports import report_of
from service.engine.drift.shadows import Shadows
from service.engine.drift.spare import SpareTime
from service.engine.drift.watching import ModelWatch

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from service.domain.verdicts import Action, FeedbackResult, Happening, Label, ModelDrift, Verdict
    from service.engine.dispatcher import Dispatcher
    from service.engine.drift.keeping import KeepingSettings
    from service.engine.loaded import LoadedModel
    from service.engine.registry import Registry

_LOGGER: Final = logging.getLogger("tiergate")
_Answer = TypeVar("_Answer")

_EVERY_S: Final = 0.25
_SHARES_EVERY_S: Final = 1.0
_REVIEW_EVERY_S: Final = 5.0
_PUT_IN_FORCE_S: Final = 10.0
_LEAST_IDLE_RATIO: Final = 0.15


class Drift:
    """The watch over all models of one gateway; ``start`` and the coroutines run on the event loop that serves."""

    def __init__(
        self, registry: Registry, dispatcher: Dispatcher, keeping: KeepingSettings, wall: Callable[[], float]
    ) -> None:
        """Watch nothing yet; ``wall`` is the time since 1970, in seconds."""
        self.shadows = Shadows(lambda: not dispatcher.desk.models and dispatcher.desk.has_idle_lane, dispatcher.clock)
        self.reports: dict[str, ModelDrift] = {}
        self._registry = registry
        self._dispatcher = dispatcher
        self._keeping = Keeping(keeping, wall)
        self._wall = wall
        self.idle_ratio: Callable[[], float] = SpareTime().look
        self._watches: dict[str, ModelWatch] = {}
        self._asked: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._troubles: set[str] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._work, name="drift", daemon=True)
        self._shared_s = self._reviewed_s = dispatcher.clock()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch what the registry has loaded by now and later; verdicts are put in force on ``loop``."""
        self._loop = loop
        self.shadows.start()
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Write what is left and end the threads, waiting at most so long for each."""
        self.shadows.close(timeout_s)
        self._asked.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def report(self, model: str) -> Future[ModelDrift]:
        """Have told what is known of a loaded model now.

        Raises:
            ModelNotFound, ModelNotReady: It is not loaded.
        """
        self._registry.get(model)
        return self._ask(lambda: self._report(self._found(model)))

    def act(self, model: str, variant: str, action: Action, who: str) -> Future[ModelDrift]:
        """Have done by hand what a person wants; the future ends when routing goes by it.

        Raises:
            ModelNotFound, ModelNotReady, VariantNotFound: There is nothing to act on.
        """
        info = self._registry.get(model).info
        if info.variant(variant) is None:
            names = ", ".join(item.name for item in info.variants)
            raise VariantNotFound(f"model '{model}' has no variant '{variant}'; its variants are {names}")
        return self._ask(lambda: self._act(model, variant, action, who))

    def take_labels(self, model: str, labels: Sequence[Label]) -> Future[FeedbackResult]:
        """Have labels joined with the predictions that are kept.

        Raises:
            ModelNotFound, ModelNotReady: It is not loaded.
        """
        self._registry.get(model)
        return self._ask(lambda: self._join(model, labels))

    def _ask(self, act: Callable[[], _Answer]) -> Future[_Answer]:
        """Have the thread do something, and return what comes of it."""
        answer: Future[_Answer] = Future()

        def work() -> None:
            if answer.set_running_or_notify_cancel():
                try:
                    answer.set_result(act())
                except Exception as error:  # noqa: BLE001 - it is raised where the answer is awaited
                    answer.set_exception(error)

        self._asked.put(work)
        return answer

    # Everything below is done by the thread.

    def _work(self) -> None:
        self._keeping.open()
        due_s, is_open = self._dispatcher.clock(), True
        while is_open:
            try:
                asked = self._asked.get(timeout=max(0.0, due_s - self._dispatcher.clock()))
            except Empty:
                due_s = self._dispatcher.clock() + _EVERY_S
                self._guarded(self._look)
                continue
            is_open = asked is not None
            self._guarded(self._gather)
            if asked is not None:
                asked()
                del asked  # it holds what it was asked about
        self._keeping.close()

    def _guarded(self, act: Callable[[], None]) -> None:
        """Do something without ever ending the thread; the same trouble is logged once."""
        try:
            act()
        except Exception as error:  # the gateway serves on, whatever is wrong with watching it
            if repr(error) not in self._troubles:
                self._troubles.add(repr(error))
                _LOGGER.exception("watching for drift failed")

    def _look(self) -> None:
        """Take what has gathered, choose shares each second, and now and then review and report."""
        self._gather()
        now_s = self._dispatcher.clock()
        if now_s - self._shared_s >= _SHARES_EVERY_S:
            elapsed_s, self._shared_s = now_s - self._shared_s, now_s
            self.shadows.has_spare = self.idle_ratio() >= _LEAST_IDLE_RATIO
            for watch in self._watches.values():
                watch.follow_policy()
                watch.set_shares(elapsed_s)
                watch.taps.kept_share = self._keeping.share_of(watch)
                watch.model.on_answer = watch.taps.answered if watch.is_on or self._keeping.is_open else None
                self._put_in_force(watch)
        if now_s - self._reviewed_s >= _REVIEW_EVERY_S or self.reports.keys() != self._watches.keys():
            self._reviewed_s = now_s
            for watch in self._watches.values():
                watch.review()
                self._put_in_force(watch)
            self.reports = {name: self._report(watch) for name, watch in self._watches.items()}

    def _gather(self) -> None:
        self._follow_models()
        touched = set()
        while not self.shadows.done.empty():
            item = self.shadows.done.get()
            watch = self._watches.get(item.sample.model.info.name)
            if watch is not None and watch.model is item.sample.model:
                watch.compared(item)
                touched.add(watch)
        for watch in self._watches.values():
            samples = [watch.taps.watched.popleft() for _ in range(len(watch.taps.watched))]
            if samples:
                watch.watched(samples)
            self._keeping.keep(watch)
        for watch in touched:
            self._put_in_force(watch)

    def _follow_models(self) -> None:
        loaded = {model.info.name: model for model in self._registry.all()}
        gone = [watch.model for name, watch in self._watches.items() if loaded.get(name) is not watch.model]
        for name in self._watches.keys() - loaded.keys():
            del self._watches[name]
        for name, model in loaded.items():
            before = self._watches.get(name)
            if (before is None or before.model is not model) and model.reference is not None:
                self._begin(model, before)
        if gone:
            before = None
            _let_go(gone)

    def _begin(self, model: LoadedModel, before: ModelWatch | None) -> None:
        reference = model.reference
        if reference is None:
            return
        watch = ModelWatch(model, reference, self.shadows, self._wall, _tell)
        self._watches[model.info.name] = watch
        if before is not None:
            watch.take_over(before)
        else:
            self._keeping.remember(watch)
        watch.taps.kept_share = self._keeping.share_of(watch)
        watch.set_shares(_EVERY_S)
        model.on_answer = watch.taps.answered
        self._put_in_force(watch)

    def _put_in_force(self, watch: ModelWatch) -> Future[None] | None:
        """Have routing go by a model's verdicts, where they have changed."""
        verdicts, loop = watch.verdicts(), self._loop
        if verdicts == watch.in_force or loop is None:
            return None
        watch.in_force = verdicts
        self._reviewed_s = -inf  # metrics tell of it soon
        done: Future[None] = Future()

        def swap() -> None:
            self._swap(watch.model, verdicts)
            done.set_result(None)

        try:
            loop.call_soon_threadsafe(swap)
        except RuntimeError:  # the loop has closed: nothing is routed any more
            return None
        return done

    def _swap(self, model: LoadedModel, verdicts: dict[str, Verdict]) -> None:
        """On the event loop's thread: between two arrivals, and with the lock between two decisions."""
        with self._dispatcher.deciding:
            model.believe(verdicts)
            out = {item.name for item in model.info.variants if item.is_routable} - {
                item.name for item in model.judged.variants if item.is_routable
            }
            if out:
                self._dispatcher.parking.avoid(model, out)

    def _found(self, model: str) -> ModelWatch:
        self._follow_models()
        watch = self._watches.get(model)
        if watch is None:
            raise NotSupported(f"model '{model}' did not come from a repository: there is nothing to watch it by")
        return watch

    def _report(self, watch: ModelWatch) -> ModelDrift:
        return report_of(watch, self.shadows, has_store=self._keeping.is_open)

    def _join(self, model: str, labels: Sequence[Label]) -> FeedbackResult:
        watch = self._found(model)
        result = self._keeping.join(watch, labels)
        self._reviewed_s = -inf  # metrics tell of it soon
        self._put_in_force(watch)
        return result

    def _act(self, model: str, variant: str, action: Action, who: str) -> ModelDrift:
        watch = self._found(model)
        if variant not in watch.watches:
            raise NotSupported(f"variant '{variant}' of model '{model}' is not loaded: there is nothing to act on")
        watch.act(variant, action, who)
        done = self._put_in_force(watch)
        if done is not None:
            done.result(timeout=_PUT_IN_FORCE_S)
        return self._report(watch)


def _let_go(gone: list[LoadedModel]) -> None:
    """Cut models off from their taps, which hold each other, and give the memory back.

    A model that was there when the gateway started is out of the garbage collector's sight: as a cycle it would stay.
    """
    while gone:
        gone.pop().on_answer = None
    give_back()


def _tell(model: str, variant: str, happening: Happening) -> None:
    fields = {
        "model": model,
        "variant": variant,
        "before": happening.before,
        "after": happening.after,
        "by": happening.by,
        "evidence": happening.evidence,
    }
    level = logging.INFO if happening.after in ("healthy", "restored") else logging.WARNING
    _LOGGER.log(level, "drift: variant %s", happening.after, extra={"fields": fields})
