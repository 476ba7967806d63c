from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from service.api.http_app import HttpApp
from service.api.policy_routes import policy_routes
from service.domain.errors import InvalidRequest, PolicyChanged, PolicyNotKept
from service.domain.policy_file import PolicyFile
from service.domain.policy_text import PolicyText, Replacement
from tests.service.api.conftest import ask, content

if TYPE_CHECKING:
    from collections.abc import Collection

    from tests.service.api.conftest import Caller, StubPlane

OLD = b"default: {max_queued: 5}  # as it was written\n"
DIGEST = hashlib.sha256(OLD).hexdigest()
PATH = "/v2/policy"


@dataclass
class StubPolicies:
    """Remembers what was to be put in force, and fails with ``error``."""

    text: PolicyText = field(default_factory=lambda: PolicyText(PolicyFile(), OLD, DIGEST))
    error: Exception | None = None
    seen: list[tuple[bytes, Collection[str] | None]] = field(default_factory=list)

    async def replace(self, content: bytes, expected: Collection[str] | None = None) -> Replacement:
        self.seen.append((content, expected))
        if self.error is not None:
            raise self.error
        return Replacement("d2", ("default.max_queued: 5 -> 6",), is_kept_in_file=True)


@pytest.fixture
def policies() -> StubPolicies:
    return StubPolicies()


@pytest.fixture
def admin(caller: Caller, plane: StubPlane, policies: StubPolicies) -> Caller:
    return type(caller)(HttpApp(plane, admin=True, more=policy_routes(policies)))


@pytest.mark.parametrize(
    "accept", [None, "*/*", "application/yaml", "application/json;q=0.5, application/yaml", "x;q=a"]
)
async def test_policy_is_given_as_it_was_written(admin: Caller, accept: str | None) -> None:
    answer = await ask(admin, "GET", PATH, headers={"accept": accept} if accept else {})
    assert (answer.status, answer.body) == (200, OLD)
    assert (answer.headers["content-type"], answer.headers["etag"]) == ("application/yaml", f'"{DIGEST}"')


async def test_policy_is_given_as_json_with_its_defaults_where_that_is_asked_for(admin: Caller) -> None:
    answer = await ask(admin, "GET", PATH, headers={"accept": "application/json, */*;q=0.1"})
    assert PolicyFile.model_validate(content(answer)) == PolicyFile()
    assert answer.headers["etag"] == f'"{DIGEST}-json"'
    assert answer.headers["vary"] == "accept"


async def test_put_hands_the_body_on_and_tells_what_changed(admin: Caller, policies: StubPolicies) -> None:
    answer = await ask(admin, "PUT", PATH, body=b"{}", headers={"content-type": "application/json; charset=utf-8"})
    assert content(answer) == {"digest": "d2", "changes": ["default.max_queued: 5 -> 6"], "kept_in": "file"}
    assert (answer.status, answer.headers["etag"]) == (200, '"d2"')
    assert policies.seen == [(b"{}", None)]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("*", None),
        ('"d1"', ("d1",)),
        ('"d1-json"', ("d1",)),
        (' "d1" , "d2"', ("d1", "d2")),
        ('W/"d1", "d2"', ("d2",)),
        ('W/"d1"', ()),
    ],
)
async def test_if_match_names_the_policies_that_may_be_replaced(
    admin: Caller, policies: StubPolicies, header: str, expected: tuple[str, ...] | None
) -> None:
    assert (await ask(admin, "PUT", PATH, body=b"{}", headers={"if-match": header})).status == 200
    assert policies.seen == [(b"{}", expected)]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"if-match": "d1"}, 400),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/octet-stream"}, 415),
    ],
)
async def test_put_refuses_headers_that_it_cannot_read(
    admin: Caller, policies: StubPolicies, headers: dict[str, str], status: int
) -> None:
    answer = await ask(admin, "PUT", PATH, body=b"{}", headers=headers)
    assert (answer.status, policies.seen) == (status, [])
    assert "allowed are" in content(answer)["error"]


async def test_put_refuses_a_policy_of_more_than_a_mebibyte(admin: Caller, policies: StubPolicies) -> None:
    assert (await ask(admin, "PUT", PATH, body=b"#" * (2**20 + 1))).status == 413
    assert policies.seen == []


@pytest.mark.parametrize(
    ("error", "status"), [(InvalidRequest("no"), 400), (PolicyChanged("no"), 412), (PolicyNotKept("no"), 409)]
)
async def test_put_says_why_a_policy_is_not_taken(
    admin: Caller, policies: StubPolicies, error: Exception, status: int
) -> None:
    policies.error = error
    answer = await ask(admin, "PUT", PATH, body=b"{}")
    assert (answer.status, content(answer)) == (status, {"error": "no"})


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_public_listener_has_no_policy(caller: Caller, method: str) -> None:
    answer = await ask(caller, method, PATH)
    assert (answer.status, "administrative listener only" in content(answer)["error"]) == (403, True)
