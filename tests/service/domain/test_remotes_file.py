from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trustme
from pydantic import ValidationError

from service.domain.remotes_file import RemotesFile
from service.engine.remotes_reader import RemotesError, read_certificates, read_remotes

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "address",
    ["grpc://triton:8001", "http://10.0.0.7:80", "grpc://[::1]:8001", "http://a.b-c:1", "grpcs://a:1", "https://a:443"],
)
def test_an_address_of_a_server_is_taken(address: str) -> None:
    found = RemotesFile.model_validate({"remotes": {"m": {"full": {"endpoints": [address]}}}})
    assert found.remotes["m"]["full"].endpoints == (address,)


@pytest.mark.parametrize(
    "address",
    [
        "triton:8001",
        "grpcs://user@triton:8001",
        "grpc://triton",
        "grpc://triton:99999",
        "http://user:secret@host:1",
        "http://host:1/path",
        "http://host:1?query",
        "file:///etc/passwd",
        "grpc://:8001",
        "unix:/socket",
    ],
)
def test_anything_else_is_refused(address: str) -> None:
    with pytest.raises(ValidationError, match="must be grpc://HOST:PORT or http://HOST:PORT"):
        RemotesFile.model_validate({"remotes": {"m": {"full": {"endpoints": [address]}}}})


def test_a_variant_without_endpoints_is_refused() -> None:
    with pytest.raises(ValidationError, match="at least 1 item"):
        RemotesFile.model_validate({"remotes": {"m": {"full": {"endpoints": []}}}})


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"endpoints": ["grpc://a:1", "grpc://a:1"]}, "names a server twice"),
        ({"endpoints": ["grpc://a:1"], "tls": {"ca_file": "ca.pem"}}, "neither grpcs:// nor https://"),
        ({"endpoints": ["grpcs://a:1"], "tls": {"client_cert_file": "c.pem"}}, "belong together"),
    ],
)
def test_what_does_not_fit_together_is_refused(fields: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        RemotesFile.model_validate({"remotes": {"m": {"full": fields}}})


def test_certificates_are_looked_for_beside_the_file_and_a_missing_one_is_named(tmp_path: Path) -> None:
    fields = {"endpoints": ["grpcs://a:1"], "tls": {"ca_file": "ca.pem"}}
    file = RemotesFile.model_validate({"remotes": {"m": {"full": fields}}})
    for content in (None, b"no certificate"):
        if content is not None:
            (tmp_path / "ca.pem").write_bytes(content)
        with pytest.raises(RemotesError, match=r"remotes\.m\.full\.tls: {'ca_file': 'ca\.pem'} cannot be used"):
            read_certificates(file, tmp_path)
    authority = trustme.CA().cert_pem.bytes()
    (tmp_path / "ca.pem").write_bytes(authority)
    assert read_certificates(file, tmp_path)["m", "full"].ca == authority


def test_without_a_file_nothing_is_remote() -> None:
    assert read_remotes(None).remotes == {}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("remotes: [", "cannot be read"),
        ("remotes: {m: {full: {endpoint: [grpc://a:1]}}}", r"remotes\.m\.full\.endpoint is .*Extra inputs"),
        ("remotes: {m: {full: {endpoints: [grpc://a:1], calls: 0}}}", r"remotes\.m\.full\.calls is '0'"),
        ("schema_version: 2", "schema_version is '2'"),
        ("- 1", "the file is"),
    ],
)
def test_a_file_that_cannot_be_used_says_where(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "remotes.yaml"
    path.write_text(content)
    with pytest.raises(RemotesError, match=told):
        read_remotes(path)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(RemotesError, match=r"absent\.yaml cannot be read"):
        read_remotes(tmp_path / "absent.yaml")
