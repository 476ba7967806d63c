from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml

from loadtests.arrivals import gamma_renewal
from loadtests.h2load import LoadError
from loadtests.outputs import write_whole
from loadtests.tuner.writing import compose, read_base
from service.cli import main
from service.domain.policy_file import ModelPolicy, PolicyFile, Provenance
from tests.builders import write_repository

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_repository(tmp_path / "repository")
    times = gamma_renewal(150.0, 3.0, 6.0, np.random.default_rng(0))
    np.savetxt(tmp_path / "trace.csv", times, header="arrival_s", comments="")
    return tmp_path


def command(folder: Path, *more: str, slo: str = "p50=100ms") -> list[str]:
    where = ["--repository", str(folder / "repository"), "--trace", str(folder / "trace.csv")]
    return ["tune", "sums", *where, "--slo", slo, "--runs", "30", "--processes", "1", "--lanes", "2", *more]


def test_a_tune_writes_a_valid_policy_with_its_provenance(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, drawn = folder / "policy.yaml", folder / "plot.svg"
    assert main(command(folder, "--output", str(output), "--plot", str(drawn), "--json")) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    policy = PolicyFile.model_validate(yaml.safe_load(output.read_text(encoding="utf-8")))
    assert policy.of("sums").default_budget_ms == 100.0
    assert policy.provenance is not None
    assert not policy.of("sums").cascades  # there was no answer sheet to simulate them by
    assert len(policy.provenance.manifests["sums"]) == 64
    assert "trace.csv sha256:" in policy.provenance.trace
    gain = document["judgement"]["gain"]
    assert policy.provenance.outcome["gain_low"] == pytest.approx(gain["low"], abs=1e-6)
    if document["verdict"] in ("better", "needed"):
        for name, change in document["changes"].items():
            assert getattr(policy.of("sums"), name) == change["after"]
    assert drawn.read_text(encoding="utf-8").startswith("<svg xmlns=")
    assert main(["policy", "validate", str(output), "--repository", str(folder / "repository")]) == 0


def test_an_slo_that_nothing_keeps_writes_nothing_and_says_by_how_much(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = folder / "policy.yaml"
    assert main(command(folder, "--output", str(output), "--rate", "6000", slo="p99=10ms")) == 3
    said = capsys.readouterr()
    assert not output.exists()
    assert "points below the floor" in " ".join(said.out.split())
    assert "nothing is written" in said.err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--base", "nowhere.yaml"), "nowhere.yaml cannot be used"),
        (("--trace", "stand-in:moon"), "stand-ins are stand-in:code, stand-in:conv"),
        (("--answers", "nowhere.npz"), "cannot be simulated"),
        (("--max-memory-mb", "0.001"), "no variant fits"),
        (("--judge-share", "1"), "both need some, at two moments"),
        (("--output", "/nowhere/policy.yaml"), "there is no folder /nowhere"),
        (("--apply", "http://127.0.0.1:9"), "cannot be reached"),
        (("--column", "when"), "no column 'when'"),
    ],
)
def test_what_cannot_be_tuned_is_refused_by_name(
    folder: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], words: str
) -> None:
    assert main(command(folder, *more)) == 2
    assert words in capsys.readouterr().err


def test_the_rest_of_a_base_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "base.yaml"
    path.write_text("default: {max_queued: 7}\nmodels: {other: {burst_price: 0.5}, sums: {max_queued: 9}}\n")
    tuned = ModelPolicy(default_budget_ms=20.0, burst_price=0.1)
    text = compose(read_base(path), "sums", tuned, Provenance(written_by="test"))
    policy = PolicyFile.model_validate(yaml.safe_load(text))
    assert policy.default.max_queued == 7
    assert policy.of("other").burst_price == 0.5
    assert policy.of("sums") == tuned
    assert policy.hardware_classes == PolicyFile().hardware_classes


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="cannot be written"):
        write_whole(tmp_path / "missing" / "policy.yaml", "x")
    write_whole(tmp_path / "policy.yaml", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["policy.yaml"]
