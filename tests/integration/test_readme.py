"""The README's commands, as a newcomer types them: the demo, the calls to try next, and the reader's own model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from service.domain.inference import Reason
from tests.integration.gateway_process import running_gateway
from variants.manifest import ModelManifest, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.gateway_process import GatewayProcess

pytest.importorskip("torch", reason="building needs the extra 'build'")

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def blocks(language: str) -> list[str]:
    """Return the README's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def block(language: str, start: str) -> str:
    """Return the one code block that contains ``start``."""
    (found,) = [text for text in blocks(language) if start in text]
    return found


def run(command: str, folder: Path) -> str:
    """Run shell commands in a folder with this environment's programs; return what they print."""
    patient = folder / "patient.yaml"
    patient.write_text("default: {default_budget_ms: 60000}", encoding="utf-8")  # a busy machine may need more than 100
    environment = {**os.environ, "PATH": PATH, "COLUMNS": "160", "TIERGATE_POLICY": str(patient)}
    done = subprocess.run(
        ["bash", "-euc", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the reader works; the repository is made there."""
    return tmp_path_factory.mktemp("reader")


@pytest.fixture(scope="module")
def demo(folder: Path) -> str:
    """What ``make demo`` prints, once the environment is there."""
    return run("tiergate demo", folder)


@pytest.fixture(scope="module")
def manifest(demo: str, folder: Path) -> ModelManifest:
    """The evidence that the demo's build wrote."""
    assert demo
    return read_manifest(folder / "repository" / "digits" / "1")


@pytest.fixture(scope="module")
def served(manifest: ModelManifest, folder: Path) -> Iterator[GatewayProcess]:
    """``tiergate serve repository``, on free ports."""
    assert manifest.model == "digits"
    with running_gateway(folder / "repository") as gateway:
        yield gateway


def test_the_two_commands_are_targets_that_run_what_is_tested_here() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^make (\w+)", block("sh", "make demo"), flags=re.MULTILINE)
    assert targets == ["demo", "test"]
    assert re.search(r"^demo:.*\n\t\$\(BIN\)/tiergate demo$", makefile, flags=re.MULTILINE)
    suite = "python -m pytest --numprocesses 2 --dist loadfile"
    assert re.search(rf"^test:.*\n\t\$\(BIN\)/{suite}$", makefile, flags=re.MULTILINE)


@pytest.mark.timeout(2400)
def test_demo_shows_every_protocol_and_several_tiers_at_work(demo: str) -> None:
    for word in ("http json", "http binary", "grpc", "within_budget", "pinned", "hardware", "accuracy_floor"):
        assert word in demo
    answered = set(re.findall(rf" (\S+) +(?:{'|'.join(Reason)})\b", demo))
    assert len(answered) >= 3, demo
    assert "A burst of 64 requests at once" in demo
    assert "curl -s" in demo


@pytest.mark.timeout(2400)
def test_demo_builds_all_six_variants_and_full_is_accurate(manifest: ModelManifest) -> None:
    assert [variant.tier for variant in manifest.variants] == [
        "full", "pruned", "quantized", "pruned-quantized", "distilled", "distilled-quantized",
    ]  # fmt: skip
    full = manifest.variant("full")
    assert full.accuracy.value >= 0.98
    for variant in manifest.variants:
        assert variant.parity is not None
        assert variant.size.file_bytes <= full.size.file_bytes


def test_curl_lines_answer(served: GatewayProcess, folder: Path) -> None:
    lines = [line for line in block("sh", "curl").splitlines() if line.startswith("curl")]
    assert len(lines) >= 3
    for line in lines:
        said = run(line.replace("127.0.0.1:8000", served.http), folder)
        assert "error" not in said[:200]
        assert "digits" in said


def test_python_lines_answer(served: GatewayProcess, folder: Path) -> None:
    script = block("python", "load_digits().images").replace("127.0.0.1:8001", served.grpc)
    (folder / "ask.py").write_text(script)
    digit, variant = run("python ask.py", folder).split()
    assert digit == "0"
    assert variant in {"full", "pruned", "quantized", "pruned-quantized", "distilled", "distilled-quantized"}


@pytest.mark.timeout(1800)
def test_own_model_is_built_and_served(folder: Path) -> None:
    (folder / "tumours.py").write_text(block("python", "RECIPE = Tumours()"))
    said = run(block("sh", "tiergate build tumours.py"), folder)
    assert "distilled-quantized" in said
    with running_gateway(folder / "repository") as gateway:
        assert "tumours" in {row["name"] for row in gateway.call("POST", "/v2/repository/index")[2]}


def test_linked_files_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)#:]+)\)", README) if not link.startswith("http")]
    assert len(links) >= 6
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.timeout(1800)
def test_simulator_line_compares_policies_on_the_built_model(manifest: ModelManifest, folder: Path) -> None:
    assert manifest.model == "digits"
    (line,) = [line for line in block("sh", "tiergate load spike").splitlines() if "simulator" in line]
    said = run(f"{line} --requests 500", folder)
    assert "slackfit" in said
    assert "tiergate" in said


def test_load_lines_are_commands_that_exist(folder: Path) -> None:
    lines = [line for line in block("sh", "tiergate load spike").splitlines() if line.startswith("tiergate load")]
    assert len(lines) == 3
    for line in lines:
        options = re.findall(r"--[a-z]+", line)
        helped = run(f"{' '.join(line.split()[: 2 + ('compare' in line)])} --help", folder)
        assert all(option in helped for option in options)
