"""The container files: read for what must hold of them, and their steps carried out in a clean environment."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from service.cli import build_parser
from tests.deploy.chart import ROOT
from tests.deploy.dockerfile import Context, carry_out, commands, read
from tests.integration.gateway_process import until, write_sums

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(1800)  # the packages may have to be fetched

FOLDER = ROOT / "deploy" / "container"
FILES = ("serve", "build")
CONTEXT = Context(ROOT)
NETWORK_TROUBLE = re.compile(
    r"error sending request|dns error|failed to fetch|connection refused|timed out", re.IGNORECASE
)


def image(name: str) -> Any:  # noqa: ANN401 - arguments and stages
    return read(FOLDER / f"{name}.Dockerfile")


@pytest.mark.parametrize("name", FILES)
def test_base_is_pinned_by_tag_and_may_be_pinned_by_digest(name: str) -> None:
    arguments, stages = image(name)
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", arguments["PYTHON_IMAGE"])
    assert arguments["PYTHON_DIGEST"] == ""
    assert {stage.base for stage in stages} == {"${PYTHON_IMAGE}${PYTHON_DIGEST}"}
    assert len(stages) == 2


@pytest.mark.parametrize("name", FILES)
def test_last_stage_runs_as_nobody_in_particular_and_installs_nothing(name: str) -> None:
    _, (_, last) = image(name)
    user, _, group = last.last("USER").text.partition(":")
    assert int(user) >= 10_000
    assert int(group) >= 10_000
    assert last.all("RUN") == []
    assert "WORKDIR" in [step.word for step in last.steps]
    assert last.last("ENTRYPOINT").listed() == ["tiergate"]


@pytest.mark.parametrize("name", FILES)
def test_every_install_goes_by_the_constraints_and_keeps_no_cache(name: str) -> None:
    installs = [text for text in commands(image(name)[1]) if "pip install" in text]
    assert len(installs) >= 2
    for text in installs:
        assert "--constraint constraints.txt" in text
        assert "--no-cache-dir" in text


def test_serving_image_has_no_torch_and_the_build_image_has() -> None:
    assert not [text for text in commands(image("serve")[1]) if re.search(r"\btorch\b|\[build\]", text)]
    assert image("serve")[1][0].last("ARG").text == "EXTRAS="
    assert [text for text in commands(image("build")[1]) if re.search(r"pip install .* torch$", text)]


@pytest.mark.parametrize("name", FILES)
def test_telemetry_of_dependencies_is_off(name: str) -> None:
    assert "ORT_DISABLE_TELEMETRY=1" in image(name)[1][1].last("ENV").text.split()


@pytest.mark.parametrize("name", FILES)
def test_everything_that_is_copied_is_in_the_context(name: str) -> None:
    _, stages = image(name)
    for step in [step for stage in stages for step in stage.all("COPY") if "--from" not in step.text]:
        for source in step.text.split()[:-1]:
            assert (ROOT / source).exists()
            assert CONTEXT.has(source) or any(CONTEXT.has(f"{source}/{one.name}") for one in (ROOT / source).iterdir())
    assert [step for stage in stages for step in stage.all("ADD")] == []


def test_context_keeps_back_what_no_image_needs() -> None:
    for name in (
        ".git/config",
        ".venv/bin/python",
        "tests/conftest.py",
        "docs/policy.md",
        "repository/digits/1/full.onnx",
    ):
        assert not CONTEXT.has(name)
    assert not CONTEXT.has("service/__pycache__/app.cpython-311.pyc")
    assert not CONTEXT.has("deploy/helm/tiergate/values.yaml")
    assert CONTEXT.has("service/api/http_app.py")
    assert CONTEXT.has("deploy/container/health.py")


@pytest.mark.parametrize("name", FILES)
def test_command_is_one_that_the_program_takes(name: str) -> None:
    _, (_, last) = image(name)
    command = last.last("CMD").listed()
    assert build_parser().parse_args(command).run
    if name == "serve":
        assert {"8000", "8001"} == set(last.last("EXPOSE").text.split())


def test_health_check_needs_nothing_but_python() -> None:
    _, (_, last) = image("serve")
    assert last.last("HEALTHCHECK").listed() == ["python", "/opt/tiergate/health.py"]
    source = (FOLDER / "health.py").read_text(encoding="utf-8")
    assert set(re.findall(r"^(?:import|from) (\w+)", source, flags=re.MULTILINE)) <= set(sys.stdlib_module_names)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root folder of the serving image's first stage: its steps, carried out; uv stands in for pip, to be quick."""
    uv = shutil.which("uv", path=f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}")  # noqa: PTH120
    if uv is None:
        pytest.skip("there is no uv")
    root = tmp_path_factory.mktemp("image")
    programs = root / "programs"
    programs.mkdir()
    write_program(
        programs / "python",
        f"""
        if [ "${{1-}} ${{2-}}" = "-m venv" ]; then
            {sys.executable} -m venv --without-pip "$3"
            printf '#!/bin/sh\\nshift; exec {uv} pip install -q --python "%s/bin/python" "$@"\\n' "$3" > "$3/bin/pip"
            chmod +x "$3/bin/pip"
        else
            exec {sys.executable} "$@"
        fi
        """,
    )
    environment = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    try:
        carry_out(without_cache_flag(image("serve")[1][0]), CONTEXT, root, environment)
    except subprocess.CalledProcessError as error:
        if NETWORK_TROUBLE.search(error.stderr):
            pytest.skip(f"the package index cannot be reached: {error.stderr[-200:]}")
        raise AssertionError(error.stderr) from None
    shutil.copy(FOLDER / "health.py", root / "opt" / "tiergate" / "health.py")
    return root / "opt" / "tiergate"


def without_cache_flag(stage: Any) -> Any:  # noqa: ANN401 - a stage
    """Let uv use its cache here: whether pip keeps one is a matter of the image's size only."""
    stage.steps = [type(step)(step.word, step.text.replace(" --no-cache-dir", "")) for step in stage.steps]
    return stage


def write_program(path: Path, script: str) -> None:
    path.write_text("#!/bin/sh\nset -eu\n" + textwrap.dedent(script))
    path.chmod(0o755)


def test_steps_install_what_serves_and_no_torch(installed: Path) -> None:
    packages = {path.name.partition("-")[0] for path in installed.glob("lib/python3*/site-packages/*.dist-info")}
    assert {"tiergate", "onnxruntime", "grpcio", "tritonclient"} <= packages
    assert not packages & {"torch", "onnx", "scikit_learn", "matplotlib", "bentoml", "pytest"}
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE))
    names = {path.name.removesuffix(".dist-info") for path in installed.glob("lib/python3*/site-packages/*.dist-info")}
    assert f"onnxruntime-{pinned['onnxruntime']}" in names


GUARD = """
import os, sys
ALLOWED = tuple(os.environ["MAY_WRITE"].split(os.pathsep))
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
PATHS = {"os.mkdir": 0, "os.rename": 1, "os.remove": 0, "os.rmdir": 0, "os.symlink": 1, "os.link": 1, "os.truncate": 0}
def guard(event, arguments):
    if event == "open":
        path, _, flags = arguments
        writes = isinstance(flags, int) and flags & WRITING
    elif event in PATHS:
        path, writes = arguments[PATHS[event]], True
    else:
        return
    if writes and isinstance(path, (str, bytes)) and not os.path.abspath(os.fsdecode(path)).startswith(ALLOWED):
        raise PermissionError(30, "Read-only file system", path)
sys.addaudithook(guard)
"""
"""A root that cannot be written, as far as Python sees: what the image's own user meets with ``--read-only``."""


def test_installed_gateway_serves_on_a_read_only_root_and_says_so_to_the_health_check(
    installed: Path, tmp_path: Path
) -> None:
    write_sums(tmp_path / "models")
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(GUARD)
    may_write = os.pathsep.join((str(tmp_path / "tmp"), "/dev/", "/proc/"))
    environment = {"PATH": f"{installed}/bin", "PYTHONPATH": str(tmp_path / "guard"), "MAY_WRITE": may_write}
    environment |= dict(
        re.findall(r"(\w+)=(\S+)", image("serve")[1][1].last("ENV").text.replace("PATH=", "IMAGE_PATH="))
    )
    environment |= {"TMPDIR": str(tmp_path / "tmp"), "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
    (tmp_path / "tmp").mkdir()
    command = [f"{installed}/bin/tiergate", "serve", str(tmp_path / "models"), "--no-pin-lanes"]
    command += [part for name in ("http", "grpc", "admin") for part in (f"--{name}-port", "0")]
    with (tmp_path / "log").open("w") as log:
        gateway = subprocess.Popen(
            command, cwd=tmp_path / "tmp", env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert gateway.stdout is not None
    try:
        ready = gateway.stdout.readline()
        assert "tiergate is ready" in ready, (tmp_path / "log").read_text()
        port = ready.strip().rpartition(":")[2]
        health = [f"{installed}/bin/python", str(installed / "health.py")]

        def is_well(*flags: str, **told: str) -> bool:
            return subprocess.run([*health, *flags], env=environment | told, check=False).returncode == 0

        until(lambda: is_well(TIERGATE_ADMIN_PORT=port))  # it gives up sooner than a busy machine answers
        until(lambda: is_well("--ready", "--port", port))
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait(300) == 0
        assert not is_well("--port", port)
        assert "Read-only" not in (tmp_path / "log").read_text()
        # Nothing keeps caches or, as telemetry does, its session there.
        assert list((tmp_path / "tmp").iterdir()) == []
    finally:
        if gateway.poll() is None:
            gateway.kill()
        gateway.wait(300)
        gateway.stdout.close()


def test_guard_of_the_test_above_refuses_writes_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(GUARD)
    script = "import sys\ntry:\n open(sys.argv[1], 'w')\nexcept OSError as error:\n print(error.strerror)"
    environment = {"PYTHONPATH": str(tmp_path), "MAY_WRITE": "/dev/", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "x")], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "Read-only file system\n"


def test_installed_program_says_how_to_get_what_builds(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [f"{installed}/bin/tiergate", "build", "digits", "--output", str(tmp_path)],
        cwd=tmp_path, env={"PATH": f"{installed}/bin"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "build" in done.stderr
    assert "Traceback" not in done.stderr


def dependencies(extras: str) -> list[str]:
    """Return what the serving image installs, as its own step lists it."""
    script = next(text for text in commands(image("serve")[1]) if "tomllib" in text).partition(" > ")[0]
    command = ["bash", "-euc", script.replace("python", sys.executable, 1)]
    environment = {**os.environ, "EXTRAS": extras}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_extras_come_on_demand() -> None:
    assert set(dependencies("pyvoy")) - set(dependencies("")) == {"pyvoy>=1.2"}


def test_bento_lists_what_the_serving_image_installs() -> None:
    text = (ROOT / "deploy" / "bento" / "bentofile.yaml").read_text(encoding="utf-8")
    listed = dependencies("")
    assert len(listed) >= 15
    assert [package for package in listed if f"- {package}" not in text and json.dumps(package) not in text] == []
