"""Drift while the gateway serves: one thread that watches, keeps, compares, and has routing act.

The event loop's part is small: the taps take references (``taps``), and verdicts are put in force between two requests
and two decisions, as a policy is. Everything else happens here: four times a second the thread takes what has gathered
(what only confidence and inputs are looked at of once a second, since many at a time cost less), and whoever asks
something (labels, a report, an action by hand) wakes it. Its state is its own; others get answers, or the reports that
it makes anew every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import traceback
from concurrent.futures import Future
from functools import partial
from math import inf
from queue import Empty
from typing import TYPE_CHECKING, Any, Final

from service.domain.errors import NotSupported, VariantNotFound
from service.engine.copies import give_back
from service.engine.drift.asking import Asking
from service.engine.drift.keeping import Keeping
from service.engine.drift.reports import report_of
from service.engine.drift.shadows import Shadows
from service.engine.drift.spare import SpareTime
from service.engine.drift.watching import ModelWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from service.domain.verdicts import Action, FeedbackResult, Happening, Label, ModelDrift, Verdict
    from service.engine.dispatcher import Dispatcher
    from service.engine.drift.asking import Asked
    from service.engine.drift.keeping import KeepingSettings
    from service.engine.loaded import LoadedModel
    from service.engine.registry import Registry

_LOGGER: Final = logging.getLogger("tiergate")

_EVERY_S: Final = 0.25
_SHARES_EVERY_S: Final = 1.0
_REVIEW_EVERY_S: Final = 5.0
_PUT_IN_FORCE_S: Final = 10.0
_BEGIN_S: Final = 10.0
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
        self._asking = Asking()
        self._troubles: set[str] = set()
        self._made: dict[str, tuple[float, ModelDrift]] = {}
        self._reviewed: frozenset[str] = frozenset()
        self._has_begun: Future[None] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._work, name="drift", daemon=True)
        self._shared_s = self._reviewed_s = dispatcher.clock()

    async def start(self) -> None:
        """Watch what the registry has loaded by now and later; verdicts are put in force on this event loop.

        Returns when it is watched, so that nothing is answered before by what was quarantined when the last process
        ended; a file of predictions that is slow to open is not waited for any longer than ``_BEGIN_S``.
        """
        self._loop = asyncio.get_running_loop()
        self.shadows.start()
        self._thread.start()
        await asyncio.wait((asyncio.wrap_future(self._has_begun),), timeout=_BEGIN_S)

    def close(self, timeout_s: float) -> None:
        """Write what is left and end the threads, waiting at most so long for each; who asks later is refused."""
        self.shadows.close(timeout_s)
        self._asking.close()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def report(self, model: str) -> Future[ModelDrift]:
        """Have told what is known of a loaded model, as of the last second.

        Raises:
            ModelNotFound, ModelNotReady: It is not loaded.
        """
        self._registry.get(model)
        return self._asking.ask(lambda: self._report_again(self._found(model)))

    def act(self, model: str, variant: str, action: Action, who: str) -> Future[ModelDrift]:
        """Have done by hand what a person wants; the future ends when routing goes by it.

        Raises:
            ModelNotFound, ModelNotReady, VariantNotFound: There is nothing to act on.
        """
        info = self._registry.get(model).info
        if info.variant(variant) is None:
            names = ", ".join(item.name for item in info.variants)
            raise VariantNotFound(f"model '{model}' has no variant '{variant}'; its variants are {names}")
        return self._asking.ask(lambda: self._act(model, variant, action, who))

    def take_labels(self, model: str, labels: Sequence[Label]) -> Future[FeedbackResult]:
        """Have labels joined with the predictions that are kept.

        Raises:
            ModelNotFound, ModelNotReady: It is not loaded.
        """
        self._registry.get(model)
        return self._asking.ask(lambda: self._join(model, labels))

    # Everything below is done by the thread.

    def _work(self) -> None:
        self._guarded(self._keeping.open)
        self._guarded(self._gather)
        self._has_begun.set_result(None)
        due_s, is_open = self._dispatcher.clock(), True
        while is_open:
            is_due = False
            try:
                is_open = self._answer(self._asking.take(max(0.0, due_s - self._dispatcher.clock())))
            except Empty:
                is_due = True
            if is_open and (is_due or self._dispatcher.clock() >= due_s):  # however many ask
                due_s = self._dispatcher.clock() + _EVERY_S
                self._guarded(self._look)
        self._keeping.close()
        self._asking.end()

    def _answer(self, asked: Asked[Any] | None) -> bool:
        """Do what was asked, with what has gathered by now; false where no more will be asked."""
        self._guarded(self._gather)
        if asked is not None:
            asked.work()
        return asked is not None

    def _guarded(self, act: Callable[[], None]) -> None:
        """Do something without ever ending the thread; a trouble of the same kind is logged once."""
        try:
            act()
        except Exception as error:  # the gateway serves on, whatever is wrong with watching it
            kind = f"{type(error).__name__} {next(reversed(traceback.extract_tb(error.__traceback__)), '')}"
            if kind not in self._troubles:
                self._troubles.add(kind)
                _LOGGER.exception("watching for drift failed")

    def _look(self) -> None:
        """Take what has gathered, choose shares each second, and now and then review and report."""
        self._gather()
        now_s = self._dispatcher.clock()
        if now_s - self._shared_s >= _SHARES_EVERY_S:
            elapsed_s, self._shared_s = now_s - self._shared_s, now_s
            self.shadows.look()
            self.shadows.has_spare = self.idle_ratio() >= _LEAST_IDLE_RATIO
            self._for_each(_watch)
            if self._keeping.open_again():
                self._for_each(lambda watch: watch.written.clear())
            self._for_each(lambda watch: self._adjust(watch, elapsed_s))
        if now_s - self._reviewed_s >= _REVIEW_EVERY_S or self._watches.keys() != self._reviewed:
            self._reviewed_s, self._reviewed = now_s, frozenset(self._watches)
            self._for_each(self._review)
            self.reports = {name: found for name, found in self.reports.items() if name in self._watches}

    def _for_each(self, act: Callable[[ModelWatch], None]) -> None:
        """Do something for every model; what goes wrong with one is not the others'."""
        for watch in list(self._watches.values()):
            self._guarded(partial(act, watch))

    def _adjust(self, watch: ModelWatch, elapsed_s: float) -> None:
        watch.follow_policy()
        watch.set_shares(elapsed_s)
        watch.taps.kept_share = self._keeping.share_of(watch)
        watch.model.on_answer = watch.taps.answered if watch.is_on or self._keeping.is_open else None
        self._put_in_force(watch)

    def _review(self, watch: ModelWatch) -> None:
        watch.review()
        self._put_in_force(watch)
        self.reports = {**self.reports, watch.model.info.name: self._report(watch)}

    def _gather(self) -> None:
        self._guarded(self._follow_models)
        touched, began_s = set(), time.thread_time()
        while not self.shadows.done.empty():
            item = self.shadows.done.get()
            watch = self._watches.get(item.sample.model.info.name)
            if watch is not None and watch.model is item.sample.model:
                self._guarded(partial(watch.compared, item))
                touched.add(watch)
        if touched:
            self.shadows.charge(time.thread_time() - began_s)
        self._for_each(self._keeping.keep)
        for watch in touched:
            self._put_in_force(watch)

    def _follow_models(self) -> None:
        loaded = {model.info.name: model for model in self._registry.all()}
        gone = [watch.model for name, watch in self._watches.items() if loaded.get(name) is not watch.model]
        for name in self._watches.keys() - loaded.keys():
            self._keeping.keep(self._watches[name])
            del self._watches[name]
            self._made.pop(name, None)
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
        self._made.pop(model.info.name, None)
        if before is not None:
            self._keeping.keep(before)
            watch.take_over(before)
        else:
            self._keeping.remember(watch)
        watch.taps.kept_share = self._keeping.share_of(watch)
        watch.set_shares(_EVERY_S)
        model.on_answer = watch.taps.answered
        self._put_in_force(watch)

    def _put_in_force(self, watch: ModelWatch) -> Future[None] | None:
        """Have routing go by a model's verdicts, where they have changed."""
        self._keeping.keep_states(watch)
        verdicts, loop = watch.verdicts(), self._loop
        if verdicts == watch.in_force or loop is None:
            return None
        watch.in_force = verdicts
        self._made.pop(watch.model.info.name, None)
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

    def _report_again(self, watch: ModelWatch) -> ModelDrift:
        """Return the report, made anew only now and then: anybody may ask for it as often as he likes."""
        now_s, name = self._dispatcher.clock(), watch.model.info.name
        made_s, found = self._made.get(name, (-inf, None))
        if found is None or now_s - made_s >= _EVERY_S:
            made_s, found = self._made[name] = now_s, self._report(watch)
        return found

    def _join(self, model: str, labels: Sequence[Label]) -> FeedbackResult:
        watch = self._found(model)
        result = self._keeping.join(watch, labels)
        self._reviewed_s = -inf  # metrics tell of it soon
        self._made.pop(model, None)
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
        self._made.pop(model, None)
        return self._report(watch)


def _watch(watch: ModelWatch) -> None:
    samples = watch.taps.take_watched()
    if samples:
        watch.watched(samples)


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
    word = happening.after if happening.after != happening.before else f"stays {happening.after}"
    _LOGGER.log(level, "drift: variant %s", word, extra={"fields": fields})
