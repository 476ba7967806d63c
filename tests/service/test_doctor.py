"""What ``tiergate doctor`` says of hosts and repositories that are given to it."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme

import service
from service.cli import main
from service.doctor import Patient, examine
from service.engine.host import Host, examine_host, read_memory_limit, read_quota_cores
from service.settings import Settings
from tests.builders import ModelPlan, VariantPlan, write_model
from tests.service.engine.test_node import UNPROVEN, write_int8

if TYPE_CHECKING:
    from service.findings import Finding

NOW_S = 1_800_000_000.0
HOST = Host(
    processor="x86_64",
    isa=("avx2", "fma", "avx512f", "avx512_vnni"),
    cores=4,
    quota_cores=None,
    memory_bytes=16 * 2**30,
    memory_limit_bytes=None,
    open_files=65_536,
)
FREE: dict[str, Any] = {"http_port": 0, "grpc_port": 0, "admin_port": 0}


def look(host: Host, repository: Path, *, measures: bool = False, **settings: Any) -> dict[str, Finding]:  # noqa: ANN401 - any setting
    """Return the findings by check."""
    patient = Patient(host, Settings(repository=repository, **{**FREE, **settings}), NOW_S, measures)
    return {finding.check: finding for finding in examine(patient)}


def levels(findings: dict[str, Finding]) -> dict[str, str]:
    """Return what is not well."""
    return {name: finding.level for name, finding in findings.items() if finding.level != "ok"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_model(tmp_path / "repository")
    return tmp_path / "repository"


def test_nothing_is_wrong_with_a_good_host_and_repository(root: Path) -> None:
    findings = look(HOST, root)
    assert levels(findings) == {}
    assert findings["lanes"].found == "4 lanes on 4 cores"
    assert findings["model sums"].found == "version 1: full, quantized, distilled"
    # The three have the same file, and so one copy.
    assert findings["memory"].found == "all variants take 1.0 MiB; this process may take 16,384.0 MiB"


@pytest.mark.parametrize(
    ("change", "check", "says"),
    [
        ({"isa": ("avx2", "fma")}, "processor", "no VNNI"),
        ({"isa": ()}, "processor", "no known instruction sets"),
        ({"quota_cores": 2.0}, "lanes", "the cgroup gives the time of 2"),
        ({"cores": 1}, "lanes", "1 lanes on 1 cores"),
        ({"open_files": 1024}, "open files", "4096 connections to each listener may take 8320"),
    ],
)
def test_a_host_that_is_less_than_could_be_is_warned_of_with_what_to_do(
    root: Path, change: dict[str, Any], check: str, says: str
) -> None:
    findings = look(replace(HOST, **change), root)
    assert levels(findings) == {check: "warn"}
    assert says in findings[check].found
    assert findings[check].advice


def test_lanes_that_were_chosen_are_held_against_the_limit(root: Path) -> None:
    limited = replace(HOST, quota_cores=2.0)
    assert levels(look(limited, root, lanes=2)) == {}
    assert look(limited, root)["lanes"].advice.startswith("--lanes 2: ")


def test_a_taken_port_fails_and_names_its_flag(root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        findings = look(HOST, root, grpc_port=taken.getsockname()[1])
    assert levels(findings) == {"grpc_port": "fail"}
    assert "--grpc-port" in findings["grpc_port"].advice


def test_memory_is_held_against_the_limit_and_the_budget(tmp_path: Path) -> None:
    plan = ModelPlan(
        variants=(
            VariantPlan("full", "full", 0.9, 0.01, memory_bytes=400 * 2**20),
            VariantPlan("small", "quantized", 0.8, 0.001, scale=2.0, memory_bytes=100 * 2**20),
        )
    )
    write_model(tmp_path, plan)
    little = replace(HOST, memory_limit_bytes=512 * 2**20)
    assert look(little, tmp_path)["memory"].level == "fail"
    assert look(little, tmp_path)["memory"].advice.startswith("--memory-budget-mb 402: ")
    assert look(little, tmp_path, memory_budget_mb=402)["memory"].level == "warn"
    assert look(little, tmp_path, memory_budget_mb=500)["memory"].level == "fail"
    assert look(little, tmp_path, memory_budget_mb=50)["memory"].level == "fail"
    assert look(HOST, tmp_path, memory_budget_mb=600)["memory"].level == "ok"


def test_broken_variants_and_repositories_without_a_model_are_named(root: Path, tmp_path: Path) -> None:
    (root / "sums" / "1" / "full.onnx").write_bytes(b"corrupt")
    findings = look(HOST, root)
    assert levels(findings) == {"model sums": "warn"}
    assert findings["model sums"].found.startswith("full: full.onnx has 7 bytes")
    for name in ("quantized", "distilled"):
        (root / "sums" / "1" / f"{name}.onnx").unlink()
    assert levels(look(HOST, root)) == {"model sums": "warn", "repository": "fail"}
    assert levels(look(HOST, tmp_path / "absent")) == {"repository": "fail"}


def test_int8_that_is_not_proven_on_this_processor_is_named_with_what_becomes_of_it(tmp_path: Path) -> None:
    root = write_int8(tmp_path, quantized=UNPROVEN)
    arm = replace(HOST, isa=("asimd", "asimddp"))
    assert levels(look(HOST, root)) == {}
    assert look(replace(HOST, isa=("avx2",)), root)["int8 sums--quantized"].found.endswith(
        "computed exactly, which is slower"
    )
    assert look(arm, root)["int8 sums--quantized"].found.endswith("routing does not choose it")
    assert look(arm, root, unproven_int8="allow")["int8 sums--quantized"].found.endswith("routed all the same")


@pytest.mark.parametrize(
    ("text", "level", "says"),
    [
        ("models: {sums: {default_budget_ms: 5}}", "ok", "is valid; digest"),
        ("models: {sums: {default_budget: 5}}", "fail", "did you mean 'default_budget_ms'?"),
        ("models: {sums: {variants: [absent]}}", "fail", "allows none of distilled, full, quantized"),
        ("models: {other: {default_budget_ms: 5}}", "warn", "models.other is not in the repository"),
    ],
)
def test_a_policy_is_read_and_held_against_the_models(
    root: Path, tmp_path: Path, text: str, level: str, says: str
) -> None:
    (tmp_path / "policy.yaml").write_text(f"schema_version: 1\n{text}\n")
    finding = look(HOST, root, policy=tmp_path / "policy.yaml")["policy"]
    assert finding.level == level
    assert says in finding.found


def test_remotes_are_read_and_called(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "remotes.yaml"
    (root / "sums" / "1" / "full.onnx").unlink()  # which another server has
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"grpc://127.0.0.1:{server.getsockname()[1]}"
        path.write_text(f"remotes: {{sums: {{full: {{endpoints: ['{address}']}}}}}}")
        assert levels(look(HOST, root, remotes=path)) == {}
    with socket.socket() as silent:  # which listens to nobody
        silent.bind(("127.0.0.1", 0))
        address = f"grpc://127.0.0.1:{silent.getsockname()[1]}"
        path.write_text(f"remotes: {{sums: {{full: {{endpoints: ['{address}']}}}}}}")
        finding = look(HOST, root, remotes=path)["remotes"]
    assert (finding.level, finding.found) == ("warn", f"no connection to {address}")
    path.write_text("remotes: {sums: {full: {endpoints: ['ftp://there:1']}}}")
    assert look(HOST, root, remotes=path)["remotes"].level == "fail"


def test_an_optional_part_fails_only_where_a_setting_needs_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    findings = look(HOST, root)
    assert findings["node"].level == "ok"
    assert findings["node"].found == "is absent; proving edge exports needs it"
    assert findings["node"].advice


def test_models_are_run_where_that_is_asked_for(root: Path) -> None:
    findings = look(HOST, root, measures=True)
    assert findings["speed sums--full"].level == "ok"  # much faster than its 30 ms
    assert "30.000 ms where it was built" in findings["speed sums--full"].found


def test_listeners_must_not_want_the_same_port(root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    findings = look(HOST, root, http_port=port, grpc_port=port)
    assert levels(findings) == {"grpc_port": "fail"}
    # Envoy answers both on the HTTP port.
    assert "grpc_port" not in look(HOST, root, http_port=port, grpc_port=port, frontend="pyvoy")


def test_remotes_of_what_is_not_built_are_told(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "remotes.yaml"
    with socket.create_server(("127.0.0.1", 0)) as server:
        spec = {"endpoints": [f"grpc://127.0.0.1:{server.getsockname()[1]}"]}
        path.write_text(json.dumps({"remotes": {"sums": {"full": spec, "huge": spec}, "other": {"full": spec}}}))
        finding = look(HOST, root, remotes=path)["remotes"]
    assert (finding.level, finding.found) == ("warn", "the repository has no sums--huge, other--full")


def test_a_model_that_is_required_and_absent_fails(root: Path) -> None:
    finding = look(HOST, root, required_models=("sums", "other"))["repository"]
    assert (finding.level, finding.found.partition(",")[0]) == ("fail", "required_models names other")


@pytest.mark.parametrize(("token", "level"), [("open sesame", "ok"), (" \n", "fail"), (None, "fail")])
def test_an_admin_token_that_cannot_be_used_fails(root: Path, tmp_path: Path, token: str | None, level: str) -> None:
    path = tmp_path / "token"
    if token is not None:
        path.write_text(token)
    assert look(HOST, root, admin_token_file=path)["admin token"].level == level


@pytest.mark.parametrize("key", ["", "not a key", None])
def test_a_certificate_without_its_key_fails(root: Path, tmp_path: Path, key: str | None) -> None:
    made = trustme.CA().issue_cert("localhost")
    made.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    if key is not None:
        (tmp_path / "key.pem").write_text(key)
    files: dict[str, Any] = {"tls_cert_file": tmp_path / "cert.pem", "tls_key_file": tmp_path / "key.pem"}
    finding = look(HOST, root, **files)["certificate"]
    assert finding.level == "fail"
    assert "key.pem" in finding.found


@pytest.mark.parametrize(("days", "level"), [(60, "ok"), (5, "warn"), (-1, "fail")])
def test_a_certificate_that_ends_soon_is_told(root: Path, tmp_path: Path, days: int, level: str) -> None:
    ends = dt.datetime.fromtimestamp(NOW_S, dt.UTC) + dt.timedelta(days=days)
    made = trustme.CA().issue_cert("localhost", not_before=ends - dt.timedelta(days=365), not_after=ends)
    made.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    made.private_key_pem.write_to_path(tmp_path / "key.pem")
    files: dict[str, Any] = {"tls_cert_file": tmp_path / "cert.pem", "tls_key_file": tmp_path / "key.pem"}
    finding = look(HOST, root, **files)["certificate"]
    assert finding.level == level
    assert f"expires in {days:.1f} days" in finding.found


def test_limits_are_those_of_the_cgroup_and_of_all_above_it(tmp_path: Path) -> None:
    own = tmp_path / "sys/fs/cgroup/kubepods/pod"
    own.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/kubepods/pod\n")
    assert read_quota_cores(tmp_path) is None
    assert read_memory_limit(tmp_path) is None
    (own / "cpu.max").write_text("max 100000\n")
    (own / "memory.max").write_text("max\n")
    (own.parent / "cpu.max").write_text("150000 100000\n")
    (own.parent / "memory.max").write_text("1073741824\n")
    assert read_quota_cores(tmp_path) == 1.5
    assert read_memory_limit(tmp_path) == 2**30


def test_limits_of_the_first_version_of_cgroups_are_read_too(tmp_path: Path) -> None:
    for name in ("cpu", "memory"):
        (tmp_path / "sys/fs/cgroup" / name).mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu/cpu.cfs_quota_us").write_text("200000\n")
    (tmp_path / "sys/fs/cgroup/cpu/cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "sys/fs/cgroup/memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert read_quota_cores(tmp_path) == 2.0
    assert read_memory_limit(tmp_path) is None


def test_the_page_lists_every_check(root: Path, tmp_path: Path) -> None:
    page = (Path(service.__file__).parents[1] / "docs" / "doctor.md").read_text(encoding="utf-8")
    listed = {name for row in re.findall(r"^\| (`.+?) \|", page, re.MULTILINE) for name in re.findall(r"`(.+?)`", row)}
    path = tmp_path / "remotes.yaml"
    path.write_text("remotes: {}")
    told = look(
        replace(HOST, isa=("avx2",)), write_int8(tmp_path / "int8", quantized=UNPROVEN), remotes=path, measures=True
    )
    kinds = {re.sub(r"^(model|int8|speed) .*", r"\1 ...", name) for name in told}
    assert kinds - {"python"} == listed - {"repository", "certificate", "admin token", "--measure"}
    assert "repository" in look(HOST, root / "absent")


def test_this_host_can_be_examined() -> None:
    host = examine_host()
    assert 0.0 < host.usable_cores <= host.cores
    assert 0 < host.usable_bytes <= host.memory_bytes


def test_the_command_ends_where_nobody_reads_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "w") as unread:
        monkeypatch.setattr("sys.stdout", unread)
        assert main(["doctor", str(root)]) == 141


def test_the_command_prints_json_and_its_status_says_whether_something_fails(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in FREE:
        monkeypatch.setenv(f"TIERGATE_{name.upper()}", "0")
    assert main(["doctor", str(root), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["counts"]["fail"] == 0
    assert {item["level"] for item in told["findings"]} <= {"ok", "warn"}
    assert set(told["findings"][0]) == {"check", "level", "found", "advice"}
    assert main(["doctor", str(tmp_path / "absent")]) == 1
    assert "fail repository: " in capsys.readouterr().out
    monkeypatch.setenv("TIERGATE_LANES", "many")
    assert main(["doctor"]) == 2
    assert "tiergate doctor: lanes: Input should be a valid integer" in capsys.readouterr().err
