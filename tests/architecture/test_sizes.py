"""The budgets of the style guide, counted on the syntax tree: sizes, depth, names, docstrings."""

from __future__ import annotations

import ast
import statistics
from dataclasses import dataclass
from pathlib import Path

import pytest

import service

ROOT = Path(service.__file__).parents[1]
PACKAGES = ("service", "variants", "loadtests")
DOCUMENTED = ("service/domain", "service/policy", "service/engine", "variants")
HARD_LINES, SOFT_LINES = 400, 300
HARD_FUNCTION, MOST_P90, MOST_MEDIAN = 60, 30, 9
VAGUE_NAMES = frozenset({"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"})

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Function:
    """A function and how many lines it takes below its signature, docstring left out."""

    where: str
    lines: int


def python_files() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def line_count(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def functions() -> list[Function]:
    return [
        Function(f"{shown(path)}:{node.lineno} {node.name}", body_lines(node))
        for path in python_files()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, FunctionNode)
    ]


def body_lines(node: FunctionNode) -> int:
    """Count the lines of a function's body; its docstring is documentation, not length."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_sizes_keep_their_hard_limits() -> None:
    files = {shown(path): line_count(path) for path in python_files()}
    lengths = sorted(function.lines for function in functions())
    p90, median = statistics.quantiles(lengths, n=10)[-1], statistics.median(lengths)
    print_table(files, median, p90)
    assert {name: lines for name, lines in files.items() if lines > HARD_LINES} == {}
    assert [function for function in functions() if function.lines > HARD_FUNCTION] == []
    assert median < MOST_MEDIAN
    assert p90 < MOST_P90


def print_table(files: dict[str, int], median: float, p90: float) -> None:
    print(f"\n{'package':12}{'files':>7}{'lines':>8}{'largest':>9}")  # noqa: T201 - the table is wanted
    for package in PACKAGES:
        sizes = [lines for name, lines in files.items() if name.startswith(f"{package}/")]
        print(f"{package:12}{len(sizes):7}{sum(sizes):8}{max(sizes, default=0):9}")  # noqa: T201 - the table is wanted
    print(f"functions: median {median:g} lines, p90 {p90:g}")  # noqa: T201 - the table is wanted
    for name, lines in files.items():
        if lines > SOFT_LINES:
            print(f"over the soft limit of {SOFT_LINES}: {name} {lines}")  # noqa: T201 - the table is wanted


def test_folders_are_at_most_two_deep() -> None:
    deep = [shown(path) for path in python_files() if len(path.relative_to(ROOT).parts) > 1 + 2 + 1]
    assert deep == []


def test_no_name_is_vague() -> None:
    named = [*python_files(), *(path for path in (ROOT / "tests").rglob("*.py"))]
    vague = [shown(path) for path in named if VAGUE_NAMES & {part.removesuffix(".py") for part in path.parts[-4:]}]
    assert vague == []


@pytest.mark.parametrize("package", DOCUMENTED)
def test_every_public_name_is_documented(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    missing = [f"{shown(path)} {name}" for path in files for name in undocumented(path)]
    assert files
    assert missing == []


def undocumented(path: Path) -> list[str]:
    """Return the public classes, functions and methods of a module that have no docstring, and the module's own."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    found = [] if ast.get_docstring(module) else ["the module"]
    for node in module.body:
        if isinstance(node, FunctionNode | ast.ClassDef) and not node.name.startswith("_"):
            members = node.body if isinstance(node, ast.ClassDef) else []
            public = [node, *(item for item in members if isinstance(item, FunctionNode))]
            found += [item.name for item in public if item.name[0] != "_" and ast.get_docstring(item) is None]
    return found


def test_tests_patch_little() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    patches = sum(text.count("monkeypatch.setattr") + text.count("mock.patch") for text in texts)
    tests = sum(text.count("def test_") for text in texts)
    assert patches * 100 < tests * 5


def test_tests_do_not_sleep_to_wait() -> None:
    sleeping = [
        f"{shown(path)}:{node.lineno}"
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("time.sleep", "asyncio.sleep")
        and [ast.unparse(argument) for argument in node.args] != ["0"]
    ]
    assert sleeping == []
