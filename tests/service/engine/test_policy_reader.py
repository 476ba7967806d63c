from __future__ import annotations

import hashlib
import stat
from typing import TYPE_CHECKING

import pytest

from service.domain.policy_file import PolicyFile
from service.engine.policy_reader import MOST_BYTES, PolicyError, parse_policy, read_policy, write_policy

if TYPE_CHECKING:
    from pathlib import Path


def test_read_policy_gives_the_defaults_without_a_file() -> None:
    text = read_policy(None)
    assert text.policy == PolicyFile()
    assert parse_policy(text.content, "it") == text


def test_read_policy_returns_the_file_and_its_digest(tmp_path: Path) -> None:
    content = b"models:\n  sums:\n    default_budget_ms: 25\n"
    (tmp_path / "policy.yaml").write_bytes(content)
    text = read_policy(tmp_path / "policy.yaml")
    assert text.policy.of("sums").default_budget_s == 0.025
    assert (text.content, text.digest) == (content, hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"models: [", "cannot be read"),
        (b"\xff\xfe\xff", "cannot be read"),
        (b"!!python/object/apply:os.system ['true']", "cannot be read"),
        (b"models: " + b"[" * 5000, "cannot be read"),
        (b"a: 1\n---\nb: 2", "cannot be read"),
        (b"", "is not valid: it is empty"),
        (b"- 1", "is not valid: line 1: the policy is .*; it must be a valid dictionary"),
        (b"\nbudget: 5", "is not valid: line 2: budget is not a field; allowed are schema_version, default, models"),
        (b"default: {max_queud: 1}", r"default\.max_queud is not a field; did you mean 'max_queued'\?"),
        (b"hardware_classes: {a: {match: {mobile: 1}}}", "match.mobile is not a field; did you mean 'is_mobile'"),
        (b"default: {max_queued: 0}", r"default\.max_queued is 0; it must be greater than or equal to 1"),
        (b"default:\n  max_queued: yes", "line 2: default.max_queued is True; it must not be true or false"),
        (b"default: {safety_quantile: p90}", "is 'p90'; it must be 'p50', 'p95' or 'p99'"),
        (b"provenance: {seed: 1}", "provenance.written_by is missing"),
        (b"models:\n  a: {}\n  a: {}", "line 3: 'a' is given twice"),
        (b"default: &a {}\nmodels: {b: {<<: *a}}", "line 2: merge keys"),
        (b"#" * (MOST_BYTES + 1), "is too large"),
    ],
)
def test_read_policy_refuses_what_is_no_policy_and_says_where(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "policy.yaml").write_bytes(content)
    with pytest.raises(PolicyError, match=problem):
        read_policy(tmp_path / "policy.yaml")


def test_read_policy_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"absent\.yaml cannot be read"):
        read_policy(tmp_path / "absent.yaml")


@pytest.mark.parametrize("shape", ["[{}]", "{{x: {}}}"])
def test_parse_policy_is_not_drowned_by_nested_aliases(shape: str) -> None:
    lines = ["a0: &a0 x", *(f"a{n}: &a{n} {shape.format(', '.join([f'*a{n - 1}'] * 9))}" for n in range(1, 40))]
    if "{" in shape:
        lines = [line.replace("{x: ", "{x: [").replace("}", "]}") for line in lines]
    with pytest.raises(PolicyError) as caught:
        parse_policy("\n".join(lines).encode(), "it")
    assert len(str(caught.value)) < 10_000


def test_parse_policy_takes_json() -> None:
    assert (
        parse_policy(b'{"models": {"sums": {"default_budget_ms": 25}}}', "it").policy.of("sums").default_budget_ms == 25
    )


def test_write_policy_replaces_what_a_link_leads_to_and_keeps_its_mode(tmp_path: Path) -> None:
    real, link = tmp_path / "real.yaml", tmp_path / "policy.yaml"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link.symlink_to(real)
    write_policy(link, b"new")
    assert link.is_symlink()
    assert (real.read_bytes(), stat.S_IMODE(real.stat().st_mode)) == (b"new", 0o640)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["policy.yaml", "real.yaml"]


def test_write_policy_leaves_nothing_behind_where_it_fails(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").mkdir()
    with pytest.raises(PolicyError, match="cannot be written: Is a directory"):
        write_policy(tmp_path / "policy.yaml", b"new")
    assert [item.name for item in tmp_path.iterdir()] == ["policy.yaml"]
