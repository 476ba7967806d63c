from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from service.settings import Settings, SettingsError, is_loopback, read_settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TIERGATE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiergate.yaml"
    path.write_text("http_port: 1111\nlanes: 3\nrequired_models: [sums, digits]\n", encoding="utf-8")
    return path


def test_the_memory_budget_is_in_mib_and_off_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings({}).memory_budget_bytes is None
    monkeypatch.setenv("TIERGATE_MEMORY_BUDGET_MB", "1.5")
    assert read_settings({}).memory_budget_bytes == 3 * 2**19
    with pytest.raises(SettingsError, match="memory_budget_mb: Input should be greater than 0"):
        read_settings({"memory_budget_mb": 0})


def test_defaults_hold_where_nothing_is_said() -> None:
    settings = read_settings({})
    assert (settings.http_port, settings.host, settings.required_models) == (8000, "127.0.0.1", ())
    assert settings.max_body_bytes == 64 * 2**20


def test_the_file_wins_over_the_defaults(config: Path) -> None:
    settings = read_settings({}, config)
    assert (settings.http_port, settings.lanes, settings.required_models) == (1111, 3, ("sums", "digits"))


def test_the_environment_wins_over_the_file(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERGATE_HTTP_PORT", "2222")
    settings = read_settings({}, config)
    assert (settings.http_port, settings.lanes) == (2222, 3)


def test_flags_win_over_everything(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERGATE_HTTP_PORT", "2222")
    monkeypatch.setenv("TIERGATE_LANES", "5")
    settings = read_settings({"http_port": "3333"}, config)
    assert (settings.http_port, settings.lanes) == (3333, 5)


def test_an_empty_variable_says_nothing(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERGATE_HTTP_PORT", "")
    assert read_settings({}, config).http_port == 1111


def test_the_environment_may_name_the_file_and_a_flag_another(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIERGATE_CONFIG", str(config))
    assert read_settings({}).lanes == 3
    other = tmp_path / "other.yaml"
    other.write_text("lanes: 9\n", encoding="utf-8")
    assert read_settings({}, other).lanes == 9


def test_names_are_split_at_commas_in_flags_and_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings({"required_models": "sums, digits,"}).required_models == ("sums", "digits")
    monkeypatch.setenv("TIERGATE_REQUIRED_MODELS", "sums")
    assert read_settings({}).required_models == ("sums",)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("http_port", 65536, "less than or equal to 65535"),
        ("grpc_port", -1, "greater than or equal to 0"),
        ("lanes", "many", "valid integer"),
        ("lanes", -1, "greater than or equal to 0"),
        ("max_body_mib", 0, "greater than 0"),
        ("max_timeout_s", 3601, "less than or equal to 3600"),
        ("max_timeout_s", "inf", "less than or equal to 3600"),
        ("read_timeout_s", 0, "greater than 0"),
        ("drain_timeout_s", -0.1, "greater than or equal to 0"),
        ("frontend", "nginx", "'python' or 'pyvoy'"),
        ("log_level", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("log_format", "xml", "'json' or 'text'"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_name_and_what_is_allowed(
    name: str, value: object, allowed: str
) -> None:
    with pytest.raises(SettingsError) as refusal:
        read_settings({name: value})
    assert str(refusal.value).startswith(f"{name}: ")
    assert allowed in str(refusal.value)
    assert f"(given {value!r})" in str(refusal.value)


def test_every_wrong_value_is_named_at_once() -> None:
    with pytest.raises(SettingsError, match=r"http_port: .*; lanes: "):
        read_settings({"http_port": -1, "lanes": -1})


def test_a_wrong_value_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERGATE_LANES", "-3")
    with pytest.raises(SettingsError, match=r"lanes: .*greater than or equal to 0"):
        read_settings({})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("speed: 3\nhtp_port: 1\n", "has unknown settings: htp_port, speed"),
        ("- 1\n", "must hold a mapping of settings; it holds list"),
        ("lanes: [", "cannot be read"),
        ("!!python/object/apply:os.system ['true']", "cannot be read"),
        ("lanes: -1", "lanes: Input should be greater than or equal to 0"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "tiergate.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(SettingsError, match=problem):
        read_settings({}, path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.yaml cannot be read"):
        read_settings({}, tmp_path / "absent.yaml")


def test_an_admin_listener_that_others_reach_needs_a_token(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^admin_host 0\.0\.0\.0 is not a loopback address"):
        read_settings({"admin_host": "0.0.0.0"})  # noqa: S104 - the address under test
    token_file = tmp_path / "token"
    guarded = read_settings({"admin_host": "0.0.0.0", "admin_token_file": token_file})  # noqa: S104 - as above
    assert guarded.admin_token_file == token_file


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104 - an address, not a listener
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example.com", False),
    ],
)
def test_loopback_is_what_only_this_machine_reaches(host: str, *, is_local: bool) -> None:
    assert is_loopback(host) is is_local


def test_settings_refuse_to_be_changed() -> None:
    settings: Any = Settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.lanes = 4


@pytest.mark.parametrize("value", ["127.0.0.1:4318", "ftp://collector", "http://", "collector"])
def test_a_collectors_address_must_be_a_url(value: str) -> None:
    with pytest.raises(SettingsError, match=r"trace_endpoint: .*allowed is a URL such as http://127\.0\.0\.1:4318"):
        read_settings({"trace_endpoint": value})


def test_nothing_is_traced_unless_a_collector_is_named() -> None:
    settings = read_settings({})
    assert (settings.trace_endpoint, settings.trace_ratio, settings.decisions_kept) == (None, 0.01, 64)
    assert read_settings({"trace_endpoint": "https://collector:4318"}).trace_endpoint == "https://collector:4318"
