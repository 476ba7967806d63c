from __future__ import annotations

import asyncio
import itertools
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from service.domain.errors import InvalidRequest, PolicyChanged, PolicyNotKept
from service.domain.inference import Knobs
from service.domain.observer import SilentObserver
from service.domain.variants import Cascade
from service.engine.policy_in_force import PolicyInForce
from service.engine.policy_reader import default_policy, parse_policy, read_policy
from service.engine.registry import Registry
from service.engine.repository import Repository
from tests.builders import LADDER, make_model, make_request, make_variant, write_repository

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from service.engine.loaded import LoadedModel
    from service.engine.registry import _Loading
    from tests.service.engine.conftest import Bench
    from variants.manifest import ModelManifest

TIGHT = b"models: {sums: {default_budget_ms: 10}}"
WIDE = b"models: {sums: {default_budget_ms: 1000}}"
BROKEN = b"models: {sums: {default_budget_ms: -1}}"
MOMENTS_NS = itertools.count(10**9, 10**9)


@dataclass
class Witness(SilentObserver):
    """Remembers what became of policies."""

    applied: list[str] = field(default_factory=list)
    changes: list[tuple[str, ...]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def policy_applied(self, digest: str, changes: tuple[str, ...]) -> None:
        self.applied.append(digest)
        self.changes.append(changes)

    def policy_refused(self, why: str) -> None:
        self.refused.append(why)


@pytest.fixture
def witness() -> Witness:
    return Witness()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_bytes(WIDE)
    return path


def govern(bench: Bench, witness: Witness, path: Path | None = None) -> PolicyInForce:
    text = default_policy() if path is None else read_policy(path)
    bench.registry.apply_policy(text.policy)
    return PolicyInForce(text, path, bench.registry, bench.dispatcher, witness)


async def look_twice(policies: PolicyInForce) -> None:
    """Look as often as it takes for a change to be noticed, and then to be believed."""
    await policies.look()
    await policies.look()


async def budget_ms(bench: Bench) -> float:
    """Return the budget that a request without one gets."""
    return (await bench.plane.infer(make_request())).answer.budget_s * 1e3


def write(path: Path, content: bytes | None) -> None:
    """Write the file, or remove it; the time of a write is another one even where the file system's clock is coarse."""
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
        os.utime(path, ns=(0, next(MOMENTS_NS)))


def written(path: Path) -> bytes:
    return path.read_bytes()


async def test_changed_file_is_in_force_at_the_second_look(bench: Bench, witness: Witness, file: Path) -> None:
    policies = govern(bench, witness, file)
    assert await budget_ms(bench) == 1000
    await look_twice(policies)
    assert witness.applied == []
    write(file, TIGHT)
    await policies.look()
    assert await budget_ms(bench) == 1000
    await policies.look()
    assert await budget_ms(bench) == 10
    await look_twice(policies)
    assert witness.applied == [policies.text.digest]
    assert witness.changes == [("models.sums.default_budget_ms: 1000 -> 10",)]


async def test_file_that_is_still_being_written_is_left_alone(bench: Bench, witness: Witness, file: Path) -> None:
    policies = govern(bench, witness, file)
    await look_twice(policies)
    for length in (5, 20, len(BROKEN)):
        write(file, BROKEN[:length])
        await policies.look()
    write(file, TIGHT)
    await look_twice(policies)
    assert witness.refused == []
    assert len(witness.applied) == 1


@pytest.mark.parametrize("content", [BROKEN, b"", None, b"models: {sums: {variants: [absent]}}"])
async def test_bad_file_is_told_once_and_leaves_the_old_policy(
    bench: Bench, witness: Witness, file: Path, content: bytes | None
) -> None:
    policies = govern(bench, witness, file)
    await look_twice(policies)
    write(file, content)
    for _ in range(3):
        await look_twice(policies)
    assert (len(witness.refused), witness.applied, policies.is_file_refused) == (1, [], True)
    assert policies.text.content == WIDE
    assert await budget_ms(bench) == 1000
    write(file, TIGHT)
    await look_twice(policies)
    assert (await budget_ms(bench), policies.is_file_refused) == (10, False)


async def test_file_is_refused_until_it_says_what_is_in_force(bench: Bench, witness: Witness, file: Path) -> None:
    policies = govern(bench, witness, file)
    write(file, BROKEN)
    await look_twice(policies)
    write(file, WIDE)  # as before: nothing is applied
    await look_twice(policies)
    assert (policies.is_file_refused, witness.applied) == (False, [])
    write(file, BROKEN)
    await look_twice(policies)
    assert (policies.is_file_refused, len(witness.refused)) == (True, 2)
    await policies.replace(TIGHT)  # which writes the file
    assert (policies.is_file_refused, witness.applied) == (False, [policies.text.digest])


async def test_what_an_administrator_brings_in_vain_is_not_the_files_fault(
    bench: Bench, witness: Witness, file: Path
) -> None:
    policies = govern(bench, witness, file)
    with pytest.raises(InvalidRequest):
        await policies.replace(BROKEN)
    assert (policies.is_file_refused, len(witness.refused)) == (False, 1)


async def test_turned_link_is_noticed_as_kubernetes_turns_it(bench: Bench, witness: Witness, tmp_path: Path) -> None:
    for name, content in (("..1", WIDE), ("..2", TIGHT)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "policy.yaml").write_bytes(content)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "policy.yaml").symlink_to("..data/policy.yaml")
    policies = govern(bench, witness, tmp_path / "policy.yaml")
    await look_twice(policies)
    (tmp_path / "..data_tmp").symlink_to("..2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    await look_twice(policies)
    assert policies.text.content == TIGHT
    assert await budget_ms(bench) == 10


async def test_watch_reads_at_once_when_asked(bench: Bench, witness: Witness, file: Path) -> None:
    policies, heard = govern(bench, witness, file), asyncio.Event()
    loop = asyncio.get_running_loop()

    class Herald(Witness):
        def policy_applied(self, digest: str, changes: tuple[str, ...]) -> None:
            del digest, changes
            loop.call_soon_threadsafe(heard.set)

    policies = PolicyInForce(policies.text, file, bench.registry, bench.dispatcher, Herald())
    write(file, TIGHT)
    policies.ask()
    watching = asyncio.create_task(policies.watch())
    await heard.wait()
    watching.cancel()
    assert policies.text.content == TIGHT


async def test_asking_again_tells_again_what_is_wrong(bench: Bench, witness: Witness, file: Path) -> None:
    policies = govern(bench, witness, file)
    write(file, BROKEN)
    for _ in range(2):
        await policies._read_at_once()
    assert len(witness.refused) == 2


async def test_replace_holds_a_policy_in_memory_without_a_file(bench: Bench, witness: Witness) -> None:
    policies = govern(bench, witness)
    done = await policies.replace(TIGHT)
    assert (done.is_kept_in_file, done.digest) == (False, policies.text.digest)
    assert "models.sums.default_budget_ms: 100 (default) -> 10" in done.changes
    assert await budget_ms(bench) == 10


async def test_replace_writes_the_file_and_the_watch_finds_nothing_new(
    bench: Bench, witness: Witness, file: Path
) -> None:
    policies = govern(bench, witness, file)
    assert (await policies.replace(TIGHT)).is_kept_in_file
    assert written(file) == TIGHT
    await look_twice(policies)
    assert len(witness.applied) == 1


@pytest.mark.parametrize("content", [BROKEN, b"models: {sums: {variants: [absent]}}"])
async def test_replace_refuses_a_bad_policy_and_keeps_file_and_policy(
    bench: Bench, witness: Witness, file: Path, content: bytes
) -> None:
    policies = govern(bench, witness, file)
    with pytest.raises(InvalidRequest, match=r"models\.sums"):
        await policies.replace(content)
    assert (policies.text.content, written(file), len(witness.refused)) == (WIDE, WIDE, 1)


async def test_replace_wants_the_policy_that_the_caller_knows(bench: Bench, witness: Witness, file: Path) -> None:
    policies = govern(bench, witness, file)
    known = policies.text.digest
    with pytest.raises(PolicyChanged, match=known):
        await policies.replace(TIGHT, ["another"])
    write(file, TIGHT)  # by another hand, and not looked at yet
    with pytest.raises(PolicyChanged):
        await policies.replace(WIDE, [known])
    assert policies.text.content == TIGHT
    await policies.replace(WIDE, [known, policies.text.digest])
    assert policies.text.content == written(file) == WIDE


async def test_replace_changes_nothing_where_the_file_cannot_be_written(
    bench: Bench, witness: Witness, tmp_path: Path
) -> None:
    path = tmp_path / "absent" / "policy.yaml"
    policies = PolicyInForce(default_policy(), path, bench.registry, bench.dispatcher, witness)
    with pytest.raises(PolicyNotKept, match="No such file"):
        await policies.replace(TIGHT)
    assert (policies.text, witness.applied, len(witness.refused)) == (default_policy(), [], 1)


async def test_swap_keeps_what_waits_and_what_was_learned(bench: Bench, witness: Witness) -> None:
    policies, gate = govern(bench, witness), bench.close_gates()
    first = await bench.occupy(gate)
    waiting = await bench.send(*[make_request() for _ in range(5)])
    model = bench.model
    model.corrections["full"].rebase(0.5, bench.clock())
    queue, standing = model.queue, model.standing
    standing.virtual_s = 7.0
    before_s = model.tables["full"][1]
    await policies.replace(b"models: {sums: {safety_margin_ratio: 1.0, max_queued: 1, max_batch_size: 2}}")
    assert (model.queue, model.standing, model.standing.virtual_s) == (queue, standing, 7.0)
    assert bench.queued == 5
    assert model.tables["full"][1] == pytest.approx(before_s / 1.1 * 2.0)
    assert model.costs(bench.clock()).of("full", 1) == pytest.approx(before_s / 1.1)
    assert (model.max_rows, model.policy.max_queued) == (2, 1)
    gate.set()
    answers = await asyncio.gather(first, *waiting)
    assert len(answers) == 6


async def test_reloads_under_load_lose_no_request(make_bench: Callable[..., Bench], witness: Witness) -> None:
    quick = tuple(make_variant(item.name, item.accuracy, item.profile.cells[0].p50_s / 20) for item in LADDER)
    bench = make_bench(variants=quick, lanes=2, inline_s=0.0002)
    policies = govern(bench, witness)
    contents = [
        f"models: {{sums: {{default_budget_ms: {5 + number}, safety_quantile: {('p50', 'p99')[number % 2]}, "
        f"max_batch_size: {1 + number % 8}, weight: {1 + number}, objective: {('cost', 'accuracy')[number % 2]}}}}}"
        for number in range(20)
    ]
    tasks = []
    for content in contents:
        tasks += await bench.send(*[make_request() for _ in range(20)])
        await policies.replace(content.encode())
    answers = await asyncio.gather(*tasks)
    assert len(answers) == 400
    assert len({answer.answer.budget_s for answer in answers}) > 10
    assert len(set(witness.applied)) == 20
    assert bench.is_at_rest()


async def test_cascades_that_are_turned_off_leave_those_that_wait_for_one_unharmed(
    bench: Bench, witness: Witness
) -> None:
    info = make_model(cascades=[Cascade("distilled-quantized", "full", 0.5, 0.1, 0.918)])
    bench.model.info = info
    policies = govern(bench, witness)
    await policies.replace(b"models: {sums: {cascades: true}}")
    assert [plan.margin for plan in bench.model.plans.values()] == [0.5]
    await policies.replace(b"models: {sums: {cascades: true, cascade_margin_ratio: 0.5}}")
    assert [plan.margin for plan in bench.model.plans.values()] == [0.25]
    gate = bench.close_gates()
    first = await bench.occupy(gate)
    (waiting,) = await bench.send(make_request())
    assert any("+" in name for name in bench.model.queue.head.waiting.candidates)
    await policies.replace(b"models: {sums: {cascades: false}}")
    assert not any("+" in name for name in bench.model.route(Knobs(), bench.clock()).names)
    gate.set()
    assert len(await asyncio.gather(first, waiting)) == 2


def test_model_that_was_loading_while_the_policy_changed_goes_by_the_new_one(tmp_path: Path, witness: Witness) -> None:
    class Hurried(Registry):
        """Gets another policy just when a model is ready to be put in."""

        def _build(self, manifest: ModelManifest, loading: _Loading) -> LoadedModel:
            model = super()._build(manifest, loading)
            self.apply_policy(parse_policy(TIGHT, "it").policy)
            return model

    registry = Hurried(Repository(write_repository(tmp_path / "repository")), default_policy().policy, witness)
    assert registry.load("sums").policy.default_budget_ms == 10
