"""The commands print what was asked for, and refuse in one line."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from variants.cli import add_commands
from variants.sources.recipes import load_recipe

if TYPE_CHECKING:
    from variants.build import BuildResult

TINY = Path(__file__).with_name("tiny_recipe.py")
RAW_FEATURES = TINY.with_name("raw_features_recipe.py")

BROKEN = f"""
import sys
sys.path.insert(0, {str(TINY.parent)!r})
from tiny_recipe import Tiny

class Broken(Tiny):
    name = "broken"

    def augment(self, inputs, generator):
        return inputs.no_such_method()

RECIPE = Broken()
"""

WITHOUT_TORCH = """
import argparse, sys
from importlib.abc import MetaPathFinder

class Blocker(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "onnx", "torch_pruning", "sklearn", "matplotlib"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

sys.meta_path.insert(0, Blocker())
from variants.cli import add_commands
parser = argparse.ArgumentParser()
add_commands(parser.add_subparsers())
arguments = parser.parse_args()
sys.exit(arguments.run(arguments))
"""


def run(*words: str) -> int:
    parser = argparse.ArgumentParser(prog="tiergate")
    add_commands(parser.add_subparsers(required=True))
    arguments = parser.parse_args(words)
    code: int = arguments.run(arguments)
    return code


def run_without_torch(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *words], capture_output=True, text=True, check=False)


def test_inspect_prints_every_variant_and_why(built: BuildResult, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", "tiny", "--repository", str(built.folder.parents[1])) == 0
    printed = capsys.readouterr().out
    for variant in built.manifest.variants:
        assert variant.name in printed
    assert "full (routable): " in printed


@pytest.mark.parametrize("up", [0, 1])
def test_inspect_takes_the_path_of_a_version_or_of_a_model(
    built: BuildResult, capsys: pytest.CaptureFixture[str], up: int
) -> None:
    path = (built.folder, built.folder.parent)[up]
    assert run("inspect", str(path), "--json") == 0
    assert json.loads(capsys.readouterr().out)["build_key"] == built.manifest.build_key


def test_inspect_writes_a_plot_and_a_page_that_needs_no_other_file(built: BuildResult, tmp_path: Path) -> None:
    png, html = tmp_path / "plot.png", tmp_path / "report.html"
    assert run("inspect", str(built.folder), "--png", str(png), "--html", str(html)) == 0
    assert png.read_bytes().startswith(b"\x89PNG")
    page = html.read_text(encoding="utf-8")
    assert page == (built.folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=|@import|url\(|<script", page)


def test_inspect_refuses_a_model_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", "nothing", "--repository", str(tmp_path)) == 2
    assert "no model 'nothing' in" in capsys.readouterr().err


def test_inspect_works_without_torch(built: BuildResult, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = run_without_torch("inspect", str(built.folder), "--html", str(page))
    assert (done.returncode, done.stderr) == (0, "")
    assert page.stat().st_size > 1000


def test_inspect_names_the_extra_when_a_plot_needs_it(built: BuildResult, tmp_path: Path) -> None:
    done = run_without_torch("inspect", str(built.folder), "--png", str(tmp_path / "plot.png"))
    assert done.returncode == 2
    assert "pip install 'tiergate[build]'" in done.stderr


def test_build_names_the_extra_to_install_without_torch(tmp_path: Path) -> None:
    done = run_without_torch("build", "digits", "--output", str(tmp_path))
    assert done.returncode == 2
    message = "tiergate: building needs 'torch', which is not installed; get it with: pip install 'tiergate[build]'\n"
    assert done.stderr == message


def test_build_makes_six_variants_of_a_network_over_raw_features(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("build", str(RAW_FEATURES), "--output", str(tmp_path), "--json") == 0
    variants = json.loads(capsys.readouterr().out)["variants"]
    assert len(variants) == 6
    assert all(variant["routing"]["state"] != "rejected" for variant in variants), "int8 keeps the answers"
    assert all("INT8" in variant["size"]["weight_bytes"] for variant in variants if "quantized" in variant["tier"])


def test_build_names_the_step_that_failed_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    assert run("build", str(tmp_path / "broken.py"), "--output", str(tmp_path / "repository"), "--json") == 2
    assert re.fullmatch(
        "tiergate: step 'train full' failed: AttributeError: .* has no attribute 'no_such_method'\n",
        capsys.readouterr().err,
    )
    run("build", str(tmp_path / "broken.py"), "--output", str(tmp_path / "repository"), "--json", "--verbose")
    assert "return inputs.no_such_method()" in capsys.readouterr().err


def test_build_says_when_it_is_already_built(built: BuildResult, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("build", str(TINY), "--output", str(built.folder.parents[1])) == 0
    assert f"already built: {built.folder}" in capsys.readouterr().out.replace("\n", " ")


def test_build_prints_the_manifest_and_nothing_else_as_json(
    built: BuildResult, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("build", str(TINY), "--output", str(built.folder.parents[1]), "--json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["model"] == "tiny"
    assert printed.err == ""


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "model.txt",
            "accepted: a bundled recipe (detection, digits, forest, images, regression, text, trees)",
        ),
        ("nowhere.py", "there is no recipe file 'nowhere.py'"),
    ],
)
def test_build_refuses_other_sources(source: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("build", source) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1", "must assign RECIPE an object with augment, dataset"),
        ("1 / 0", "fails: ZeroDivisionError: division by zero"),
        (BROKEN.replace('"broken"', '"../up"'), "names its model '../up'; allowed are 1 to 64 of a-z"),
    ],
)
def test_build_refuses_a_file_that_is_no_recipe(
    tmp_path: Path, code: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(code)
    assert run("build", str(tmp_path / "mine.py")) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("seed", ["-1", "1_0", "2147483648", "x"])
def test_build_refuses_a_seed_that_is_none(seed: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("build", "digits", "--seed", seed)
    assert f"argument --seed: '{seed}' is no whole number from 0 to 2147483647" in capsys.readouterr().err


def test_rows_writes_what_the_model_takes_and_the_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.npz"
    assert run("rows", str(TINY), str(file)) == 0
    assert capsys.readouterr().out == f"120 test rows in {file}\n"
    with np.load(file, allow_pickle=False) as arrays:
        test = load_recipe(str(TINY)).load(0).test
        assert (arrays["inputs"] == test.inputs).all()
        assert (arrays["labels"] == test.labels).all()


def test_rows_refuses_a_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").write_text("a file")
    assert run("rows", str(TINY), str(tmp_path / "taken" / "rows.npz")) == 2
    assert "cannot write" in capsys.readouterr().err
