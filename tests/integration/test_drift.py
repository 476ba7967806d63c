"""Drift over real sockets: a variant with wrong weights is found, taken out, and comes back by hand or by evidence."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager
from math import inf
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from service.app import Gateway
from service.domain.errors import Draining
from service.engine.drift.shadows import Compared
from service.engine.drift.taps import Sample
from service.frontends.http import ConnectionLimits, HttpServer
from service.frontends.sockets import bind, port_of
from service.settings import Settings
from tests.drifting import LABELS, PLAN, infer_body, write_winds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

LONGEST_S = 600.0
pytestmark = pytest.mark.timeout(1800)
POLICY = """
schema_version: 1
default:
  default_budget_ms: {budget_ms}
  safety_margin_ratio: 0.0
  exploration_share: 0.0
  drift: {{shadow_share: 1.0, restore_run_length: 20, probation: 20, most: {most}}}
"""


class Served:
    """A gateway on loopback, and a client for each of its listeners."""

    def __init__(self, gateway: Gateway, public: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
        self.gateway = gateway
        self.public = public
        self.admin = admin
        self.sent = 0

    async def ask(self, request_id: str = "") -> dict[str, Any]:
        """Send one request; return its answer."""
        self.sent += 1
        reply = await self.public.post("/v2/models/winds/infer", content=infer_body(self.sent, request_id))
        assert reply.status_code == 200, reply.text
        answer: dict[str, Any] = reply.json()
        return answer

    async def answerer(self) -> str:
        """Return which variant answers now."""
        name: str = (await self.ask())["parameters"]["variant"]
        return name

    async def drift(self, variant: str = "quantized") -> dict[str, Any]:
        """Return what is known of a variant."""
        found = (await self.report())["variants"]
        return next(item for item in found if item["variant"] == variant)

    async def report(self) -> dict[str, Any]:
        """Return what is known of the model."""
        found: dict[str, Any] = (await self.public.get("/v2/models/winds/drift")).json()
        return found

    async def send_until(
        self, is_there: Callable[[dict[str, Any]], bool], variant: str = "quantized"
    ) -> dict[str, Any]:
        """Send requests one after the other until the report on a variant is as awaited."""
        async with asyncio.timeout(LONGEST_S):
            while not is_there(found := await self.drift(variant)):
                for _ in range(10):
                    await self.ask()
        return found

    async def act(self, action: str, variant: str = "quantized", why: str = "") -> httpx.Response:
        """Do something by hand."""
        return await self.admin.post(f"/v2/models/winds/variants/{variant}/drift", json={"action": action, "why": why})

    async def labels(self, labels: list[dict[str, Any]]) -> httpx.Response:
        """Send labels."""
        return await self.admin.post("/v2/models/winds/feedback", json={"labels": labels})


@asynccontextmanager
async def serving(repository: Path, most: str = "quarantine", predictions: Path | None = None) -> AsyncIterator[Served]:
    """Serve a repository; its machine is taken to be idle, because that of a test may not be.

    So shadow runs do not wait either for a moment in which no other process wants a core.
    """
    policy = repository.parent / "policy.yaml"
    policy.write_text(POLICY.format(budget_ms=60_000, most=most), encoding="utf-8")
    async with AsyncExitStack() as stack:
        patched = stack.enter_context(pytest.MonkeyPatch.context())
        patched.setattr("service.engine.drift.shadows._step_back", lambda: "normal")
        gateway = Gateway(
            Settings(repository=repository, lanes=1, pin_lanes=False, policy=policy, predictions=predictions)
        )
        gateway.drift.idle_ratio = lambda: 1.0
        await gateway.start()
        stack.push_async_callback(gateway.close)
        clients = []
        for app in (gateway.http_app(), gateway.admin_app()):
            listener = stack.enter_context(bind("127.0.0.1", 0, "http_port"))
            server = HttpServer(app, ConnectionLimits(100, 60.0), gateway.note_refusal)
            await server.start(listener)
            stack.push_async_callback(server.close)
            base = f"http://127.0.0.1:{port_of(listener)}"
            clients.append(await stack.enter_async_context(httpx.AsyncClient(base_url=base, timeout=LONGEST_S)))
        yield Served(gateway, *clients)


def is_quarantined(found: dict[str, Any]) -> bool:
    return found["state"] == "quarantined" and not found["is_routed"]


async def test_variant_with_wrong_weights_is_quarantined_and_traffic_moves_to_the_next_bigger_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_winds(tmp_path / "repository", wrong=("quantized",))
    async with serving(tmp_path / "repository") as served:
        assert await served.answerer() == "quantized"
        found = await served.send_until(is_quarantined)
        assert found["history"][-1]["by"] == "drift"
        assert "prove a severe drop" in found["history"][-1]["evidence"]
        assert found["agreement"] == 0.0
        assert await served.answerer() == "pruned"
        listed = (await served.public.get("/v2/models/winds/variants")).json()["variants"]
        assert {item["name"]: item["drift"] for item in listed} == {
            "full": "healthy",
            "pruned": "healthy",
            "quantized": "quarantined",
        }
        pinned = await served.public.post("/v2/models/winds--quantized/infer", content=infer_body(1))
        assert pinned.json()["parameters"]["variant"] == "quantized"
    logged = [record for record in caplog.records if record.getMessage() == "drift: variant quarantined"]
    assert [record.fields["variant"] for record in logged] == ["quantized"]  # type: ignore[attr-defined]
    assert "loss 1.000 against full" in logged[0].fields["evidence"]  # type: ignore[attr-defined]


async def test_full_answers_where_every_smaller_variant_is_wrong(tmp_path: Path) -> None:
    write_winds(tmp_path / "repository", wrong=("quantized", "pruned"))
    async with serving(tmp_path / "repository") as served:
        await served.send_until(is_quarantined)
        await served.send_until(is_quarantined, "pruned")
        assert await served.answerer() == "full"
        notes = (await served.public.get("/v2/models/winds/drift")).json()["notes"]
        assert "every smaller variant differs from 'full': it may be 'full' that is not what was measured" in notes
        assert (await served.drift("full"))["state"] == "healthy"


async def test_full_with_wrong_weights_is_quarantined_and_the_smaller_variants_that_contradict_it_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_winds(tmp_path / "repository", wrong=("full",))
    async with serving(tmp_path / "repository") as served:
        found = await served.send_until(is_quarantined, "full")
        assert "variants that agree with one another and not with it" in found["history"][-1]["evidence"]
        assert (found["history"][-1]["by"], found["agreement"]) == ("drift", 0.0)
        seen = found["shadow_samples"] + (await served.drift())["shadow_samples"]
        await served.send_until(lambda found: found["shadow_samples"] > seen + 50)
        listed = (await served.public.get("/v2/models/winds/variants")).json()["variants"]
        assert {item["name"]: item["drift"] for item in listed} == {
            "full": "quarantined",
            "pruned": "healthy",
            "quantized": "healthy",
        }
        notes = (await served.public.get("/v2/models/winds/drift")).json()["notes"]
        assert "'full' is in doubt: meanwhile no variant is judged by it" in notes
        assert (await served.act("release", "full")).status_code == 200
        assert (await served.act("restore", "full")).status_code == 200
        await served.send_until(is_quarantined, "full")
    logged = [record.fields for record in caplog.records if record.getMessage() == "drift: variant quarantined"]  # type: ignore[attr-defined]
    assert {item["variant"] for item in logged} == {"full"}


async def test_variant_with_right_weights_stays(tmp_path: Path) -> None:
    write_winds(tmp_path / "repository")
    async with serving(tmp_path / "repository") as served:
        found = await served.send_until(lambda found: found["shadow_samples"] >= 30)
        assert found["state"] == "healthy"
        assert found["agreement"] == 1.0
        assert await served.answerer() == "quantized"


async def test_hand_restores_what_was_quarantined_and_evidence_finds_it_again_unless_held(tmp_path: Path) -> None:
    write_winds(tmp_path / "repository", wrong=("quantized",))
    async with serving(tmp_path / "repository") as served:
        await served.send_until(is_quarantined)
        reply = await served.act("restore", why="new weights are on their way")
        assert reply.status_code == 200
        assert await served.answerer() == "quantized"
        found = await served.drift()
        hand = [item for item in found["history"] if item["by"] == "hand"]
        assert [item["after"] for item in hand] == ["restored"]
        assert "new weights are on their way" in hand[0]["evidence"]
        await served.send_until(is_quarantined)
        await served.act("restore")
        await served.act("hold")
        already = (await served.drift())["shadow_runs"]["compared"]
        await served.send_until(lambda found: found["shadow_runs"]["compared"] > already + 10)
        found = await served.drift()
        assert (found["is_held"], found["state"] in ("restored", "warned", "demoted")) == (True, True)


async def test_quarantined_variant_comes_back_by_evidence_from_the_shadow(tmp_path: Path) -> None:
    write_winds(tmp_path / "repository")
    async with serving(tmp_path / "repository") as served:
        await served.act("quarantine")
        assert await served.answerer() == "pruned"
        assert (await served.drift())["is_held"]
        await served.act("release")
        found = await served.send_until(lambda found: found["state"] in ("restored", "healthy"))
        assert found["history"][-1]["by"] == "drift" or found["history"][-2]["by"] == "drift"
        await served.send_until(lambda found: found["state"] == "healthy")
        assert await served.answerer() == "quantized"


async def test_hot_reload_of_the_policy_keeps_what_drift_found_and_none_takes_it_back(tmp_path: Path) -> None:
    write_winds(tmp_path / "repository", wrong=("quantized",))
    async with serving(tmp_path / "repository") as served:
        await served.send_until(is_quarantined)
        for most, wanted in (("quarantine", "pruned"), ("none", "quantized")):
            policy = POLICY.format(budget_ms=90_000, most=most).encode()
            headers = {"content-type": "application/yaml"}
            assert (await served.admin.put("/v2/policy", content=policy, headers=headers)).status_code == 200
            if most == "none":
                await served.send_until(lambda found: found["is_routed"])
            assert await served.answerer() == wanted


async def test_reload_of_the_model_keeps_the_quarantine_of_the_same_file_and_frees_a_repaired_one(
    tmp_path: Path,
) -> None:
    write_winds(tmp_path / "repository", wrong=("quantized",))
    async with serving(tmp_path / "repository") as served:
        await served.send_until(is_quarantined)
        await served.admin.post("/v2/repository/models/winds/load")
        assert await served.answerer() == "pruned"
        write_winds(tmp_path / "repository")
        await served.admin.post("/v2/repository/models/winds/load")
        assert await served.answerer() == "quantized"
        assert (await served.drift())["state"] == "healthy"


async def test_policy_that_only_warns_takes_nothing_out(tmp_path: Path) -> None:
    write_winds(tmp_path / "repository", wrong=("quantized",))
    async with serving(tmp_path / "repository", most="warn") as served:
        await served.send_until(lambda found: found["state"] == "warned")
        await served.send_until(lambda found: found["shadow_samples"] >= 15)
        found = await served.drift()
        assert (found["state"], found["is_routed"]) == ("warned", True)
        assert await served.answerer() == "quantized"


async def test_labels_join_with_predictions_from_before_a_restart(tmp_path: Path) -> None:
    write_winds(tmp_path / "repository")
    kept = tmp_path / "kept.db"
    async with serving(tmp_path / "repository", predictions=kept) as served:
        right = {}
        for number in range(8):
            answer = await served.ask(f"wind-{number}")
            right[f"wind-{number}"] = int(max(range(4), key=answer["outputs"][0]["data"].__getitem__))
        first = await served.labels([{"id": "wind-0", "label": right["wind-0"]}])
        assert first.json()["joined"] == 1
    async with serving(tmp_path / "repository", predictions=kept) as served:
        labels: list[dict[str, Any]] = [{"id": name, "label": LABELS[place]} for name, place in right.items()]
        labels[7]["label"] = LABELS[(right["wind-7"] + 1) % 4]
        labels += [{"id": "nobody", "label": 1}, {"id": "wind-1", "label": "no such wind"}]
        reply = (await served.labels(labels)).json()
        assert (reply["joined"], reply["unknown_ids"], reply["unfit_ids"]) == (8, ["nobody"], ["wind-1"])
        found = (await served.public.get("/v2/models/winds/drift")).json()["variants"]
        known = [item["labels"] for item in found if item["estimate_by"] == "labels"]
        assert sum(item["rows"] for item in known) == 8  # the one from before the restart is among them, once
        assert sum(item["rows"] * item["accuracy"] for item in known) == pytest.approx(7)


async def test_quarantine_holds_from_the_first_request_after_a_restart(tmp_path: Path) -> None:
    write_winds(tmp_path / "repository", wrong=("quantized",))
    async with serving(tmp_path / "repository", predictions=tmp_path / "kept.db") as served:
        await served.send_until(is_quarantined)
    async with serving(tmp_path / "repository", predictions=tmp_path / "kept.db") as served:
        assert await served.answerer() == "pruned"
        assert "prove a severe drop" in (await served.drift())["history"][-1]["evidence"]


async def test_what_goes_wrong_with_one_sample_is_logged_once_and_the_watch_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_winds(tmp_path / "repository", wrong=("quantized",))
    async with serving(tmp_path / "repository") as served:
        model, done = served.gateway.registry.get("winds"), served.gateway.drift.shadows.done
        broken = Compared(Sample(model, {}, "quantized", (), taken_s=inf), (), {"quantized": ()})
        for _ in range(3):
            done.put(broken)
        await served.send_until(is_quarantined)
        done.put(broken)
        await served.drift()
    logged = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert logged == ["watching for drift failed"]


async def test_report_that_many_ask_for_is_made_once(tmp_path: Path) -> None:
    write_winds(tmp_path / "repository")
    async with serving(tmp_path / "repository") as served:
        asked = [asyncio.wrap_future(served.gateway.drift.report("winds")) for _ in range(50)]
        assert len({id(report) for report in await asyncio.gather(*asked)}) < 50  # one in a quarter of a second


async def test_who_asks_after_the_end_is_refused(tmp_path: Path) -> None:
    write_winds(tmp_path / "repository")
    async with serving(tmp_path / "repository") as served:
        drift = served.gateway.drift
    with pytest.raises(Draining):
        await asyncio.wait_for(asyncio.wrap_future(drift.report("winds")), LONGEST_S)


async def test_gateway_serves_on_where_the_kept_predictions_are_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_winds(tmp_path / "repository")
    (tmp_path / "kept.db").write_bytes(b"no database " * 4096)
    async with serving(tmp_path / "repository", predictions=tmp_path / "kept.db") as served:
        await served.ask("wind")
        reply = await served.labels([{"id": "wind", "label": 1}])
        assert reply.status_code == 501
        assert "not a database" in reply.json()["error"]
        assert await served.answerer() == "quantized"
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "predictions are kept no more: labels cannot be joined"
    ]


async def test_labels_and_actions_are_the_administrators(tmp_path: Path) -> None:
    write_winds(tmp_path / "repository")
    async with serving(tmp_path / "repository") as served:
        for path, body in (
            ("/v2/models/winds/feedback", {"labels": []}),
            ("/v2/models/winds/variants/full/drift", {"action": "quarantine"}),
        ):
            reply = await served.public.post(path, json=body)
            assert reply.status_code == 403, reply.text
        assert (await served.labels([{"id": "a", "label": 1}])).status_code == 501  # no --predictions
        twice = b'{"labels": [{"id": "a", "label": 1, "id": "b"}]}'
        reply = await served.admin.post("/v2/models/winds/feedback", content=twice)
        assert (reply.status_code, "'id' twice" in reply.text) == (400, True)
        assert (await served.act("forgive")).status_code == 400
        assert (await served.act("hold", variant="unknown")).status_code == 404


async def test_metrics_of_drift_are_there_from_the_start_and_tell_of_a_quarantine(tmp_path: Path) -> None:
    write_winds(tmp_path / "repository", wrong=("quantized",))
    async with serving(tmp_path / "repository") as served:
        await served.send_until(lambda _: bool(served.gateway.drift.reports))
        before = (await served.public.get("/metrics")).text
        for item in PLAN.variants:
            assert f'tiergate_variant_quarantined{{model="winds",variant="{item.name}"}}' in before
        assert 'tiergate_feedback_total{model="winds",outcome="joined"} 0.0' in before
        await served.send_until(is_quarantined)
        async with asyncio.timeout(LONGEST_S):
            wanted = 'tiergate_variant_quarantined{model="winds",variant="quantized"} 1.0'
            while wanted not in (after := (await served.public.get("/metrics")).text):
                await served.ask()
        assert 'tiergate_agreement_ratio{model="winds",variant="quantized"} 0.0' in after
        of_it = '{model="winds",variant="quantized"}'
        for name in ("distance", "margin"):
            (line,) = [item for item in after.splitlines() if item.startswith(f"tiergate_score_{name}_ratio{of_it}")]
            assert 0.0 < float(line.split()[-1]) <= 1.0
        assert json.dumps(served.gateway.drift.reports["winds"].most) == '"quarantine"'
