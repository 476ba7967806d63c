from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from service.domain.policy_file import PolicyFile
from service.engine.policy_reader import PolicyError, read_policy

if TYPE_CHECKING:
    from pathlib import Path


def test_read_policy_gives_the_defaults_without_a_file() -> None:
    assert read_policy(None) == (PolicyFile(), "")


def test_read_policy_returns_the_file_and_its_digest(tmp_path: Path) -> None:
    content = b"models:\n  sums:\n    default_budget_ms: 25\n"
    (tmp_path / "policy.yaml").write_bytes(content)
    policy, digest = read_policy(tmp_path / "policy.yaml")
    assert policy.of("sums").default_budget_s == 0.025
    assert digest == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"models: [", "cannot be read"),
        (b"\xff\xfe\xff", "cannot be read"),
        (b"!!python/object/apply:os.system ['true']", "cannot be read"),
        (b"", "is not valid"),
        (b"- 1", "is not valid"),
        (b"budget: 5", "is not valid: budget: Extra inputs"),
        (b"default: {max_queued: 0}", "is not valid: default.max_queued: Input should be greater than or equal to 1"),
    ],
)
def test_read_policy_refuses_what_is_no_policy_and_names_the_field(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    (tmp_path / "policy.yaml").write_bytes(content)
    with pytest.raises(PolicyError, match=problem):
        read_policy(tmp_path / "policy.yaml")


def test_read_policy_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"absent\.yaml cannot be read"):
        read_policy(tmp_path / "absent.yaml")
