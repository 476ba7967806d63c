"""What the gateway says of itself and its models."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from service.domain.errors import InvalidRequest, ModelNotFound, ModelNotReady, VariantNotFound
from service.domain.inference import ClientHardware, Knobs, Reason
from service.domain.policy_file import PolicyFile
from service.domain.verdicts import Verdict
from service.engine.catalog import Catalog, Identity, Parts
from service.engine.dispatcher import Dispatcher
from service.engine.registry import Registry
from service.engine.repository import Repository
from service.engine.statistics import StatisticsObserver
from tests.builders import make_request, sums_onnx, write_repository

if TYPE_CHECKING:
    from pathlib import Path

    from tests.service.engine.conftest import Bench, ManualClock


@pytest.fixture
def stored(tmp_path: Path, manual_clock: ManualClock) -> Catalog:
    """Return the catalog of a repository on disk."""
    statistics = StatisticsObserver()
    registry = Registry(Repository(write_repository(tmp_path)), PolicyFile(), statistics)
    registry.load_all()
    identity = Identity("tiergate", "1.2.3", required_models=("sums",))
    return Catalog(Parts(identity, registry, Dispatcher(1, statistics, manual_clock), statistics))


def test_explain_says_who_would_answer_and_why_not_the_others(bench: Bench) -> None:
    found = bench.plane.explain("sums", Knobs(budget_s=0.006))
    assert (found.chosen, found.tier, found.reason) == ("pruned-quantized", "pruned-quantized", Reason.WITHIN_BUDGET)
    assert [(item.variant, item.fits_budget, item.why) for item in found.candidates] == [
        ("full", False, "too slow for the budget"),
        ("quantized", False, "too slow for the budget"),
        ("pruned-quantized", True, "fits the budget"),
        ("distilled-quantized", True, "fits the budget"),
    ]


def test_explain_marks_what_the_knobs_leave_out(bench: Bench) -> None:
    found = bench.plane.explain("sums", Knobs(min_accuracy=0.91))
    assert [item.is_candidate for item in found.candidates] == [True, True, False, False]
    assert found.candidates[3].why == "excluded by the request's knobs"


def test_explain_says_late_when_nothing_keeps_the_budget(bench: Bench) -> None:
    found = bench.plane.explain("sums", Knobs(budget_s=0.001))
    assert (found.chosen, found.reason) == ("distilled-quantized", Reason.LATE)


async def test_explain_counts_what_waits(bench: Bench) -> None:
    gate = bench.close_gates()
    tasks = [await bench.occupy(gate), *await bench.send(*[make_request(knobs=Knobs(5.0))] * 20)]
    found = bench.plane.explain("sums", Knobs(budget_s=0.09))
    assert found.wait_s >= 20 * 0.002
    assert (found.chosen, found.reason) == ("quantized", Reason.DOWNGRADED)
    gate.set()
    await asyncio.gather(*tasks)


def test_readiness_needs_the_required_models(stored: Catalog) -> None:
    assert (stored.is_ready(), stored.server_info().version) == (True, "1.2.3")
    assert stored.is_model_ready("sums", "1")
    assert stored.is_model_ready("sums--full", "")


async def test_readiness_ends_when_a_required_model_is_unloaded(stored: Catalog) -> None:
    await stored.unload_model("sums")
    assert (stored.is_ready(), stored.is_model_ready("sums", "")) == (False, False)
    assert stored.index(ready_only=True) == ()
    await stored.load_model("sums")
    assert stored.is_ready()


def test_readiness_of_what_is_unknown_is_an_error(stored: Catalog) -> None:
    with pytest.raises(ModelNotFound):
        stored.is_model_ready("absent", "")
    with pytest.raises(VariantNotFound):
        stored.is_model_ready("sums--absent", "")


def test_an_artifact_is_the_verified_file(stored: Catalog) -> None:
    found = stored.artifact("sums", "quantized", Knobs())
    status = found.path.lstat()
    assert found.identity == (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    assert (found.variant, found.filename) == ("quantized", "sums-quantized.onnx")
    assert found.path.read_bytes() == sums_onnx()
    assert found.size_bytes == len(sums_onnx())


def test_an_artifact_is_picked_by_the_knobs_where_none_is_named(stored: Catalog) -> None:
    assert stored.artifact("sums", "", Knobs(tier="distilled")).variant == "distilled"
    with pytest.raises(InvalidRequest):
        stored.artifact("sums", "", Knobs(min_accuracy=1.0))


def test_no_artifact_is_handed_to_a_device_that_only_quarantined_variants_suit(stored: Catalog) -> None:
    model = stored._registry.get("sums")
    least = min(item.memory_bytes for item in model.info.variants)
    knobs = Knobs(hardware=ClientHardware(memory_bytes=least))
    suited = stored.artifact("sums", "", knobs).variant
    out = [item.name for item in model.info.variants if item.memory_bytes <= least]
    model.believe({name: Verdict("quarantined", is_out=True) for name in out})
    with pytest.raises(ModelNotReady, match="drift has taken out every variant"):
        stored.artifact("sums", "", knobs)
    assert stored.artifact("sums", suited, knobs).variant == suited


def test_an_artifact_that_changed_since_it_was_verified_is_not_handed_out(stored: Catalog) -> None:
    path = stored.artifact("sums", "full", Knobs()).path
    path.write_bytes(b"other bytes")
    with pytest.raises(ModelNotReady, match="not available as it was verified"):
        stored.artifact("sums", "full", Knobs())
