from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from service.cli import main
from service.domain.policy_file import policy_schema
from tests.builders import write_repository

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text("models:\n  sums: {default_budget_ms: 20, variants: [full, quantized]}\n")
    return path


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return write_repository(tmp_path / "repository")


def test_validate_says_that_a_file_is_valid(file: Path, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "validate", str(file), "--repository", str(repository)]) == 0
    assert "is valid; digest" in capsys.readouterr().out
    assert main(["policy", "validate", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"] == ["sums"]


def test_validate_tells_every_problem_on_a_line_of_its_own(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("models:\n  sums: {max_queued: 0}\n  more: {budget: 5}\n")
    assert main(["policy", "validate", str(file)]) == 2
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert said.out == ""
    assert lines[0] == f"tiergate policy: policy file {file} is not valid"
    assert lines[1] == "  line 2: models.sums.max_queued is 0; it must be greater than or equal to 1"
    assert lines[2].startswith("  line 3: models.more.budget is not a field; ")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("models: {other: {}}", "models.other: the repository has sums"),
        ("models: {sums: {variants: [full, tiny]}}", "models.sums.variants names tiny; built are full, quantized"),
    ],
)
def test_validate_names_what_the_repository_lacks(
    file: Path, repository: Path, capsys: pytest.CaptureFixture[str], content: str, problem: str
) -> None:
    file.write_text(content)
    assert main(["policy", "validate", str(file), "--repository", str(repository)]) == 2
    assert problem in capsys.readouterr().err


def test_diff_shows_fields_with_their_defaults(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.yaml").write_text("models: {sums: {default_budget_ms: 50, variants: [full, quantized]}}")
    pair = [str(file), str(tmp_path / "other.yaml")]
    assert main(["policy", "diff", *pair]) == 0
    assert capsys.readouterr().out == "models.sums.default_budget_ms: 20 -> 50\n"
    assert main(["policy", "diff", "--json", pair[0], pair[0]]) == 0
    assert json.loads(capsys.readouterr().out) == {"changes": []}
    (tmp_path / "other.yaml").write_text("models: {sums: {variants: [full, quantized]}}")
    assert main(["policy", "diff", "--json", *pair]) == 0
    (row,) = json.loads(capsys.readouterr().out)["changes"]
    assert (row["after"], row["after_is_default"], row["before_is_default"]) == (100.0, True, False)


def test_schema_is_that_of_the_policy_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(policy_schema()))


def test_explain_tells_who_answers_on_an_idle_machine(
    file: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["policy", "explain", str(file), "--model", "sums", "--repository", str(repository)]
    assert main([*common, "--budget-ms", "5", "12"]) == 0
    text = capsys.readouterr().out
    assert "sums goes by its own policy" in text
    assert "aims at 20 ms" in text
    assert "may answer: full, quantized" in text
    assert "at   5 ms         quantized: up to 10 ms, 91.50% accurate, late" in text
    assert "at   12 ms        quantized: up to 10 ms, 91.50% accurate\n" in text
    assert main([*common, "--json"]) == 0
    explained = json.loads(capsys.readouterr().out)
    assert [item["name"] for item in explained["idle"]] == ["quantized", "quantized", "full"]
    assert explained["policy"]["default_budget_ms"] == 20
    mobile = next(item for item in explained["hardware_classes"] if item["name"] == "mobile")
    assert mobile["answer"] is None  # none of the two has a tier of that class


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0.0, "no answers are run on full: only labels tell of what became less accurate"),
        (0.0001, "that is not more than 0.5 a second, but more while"),
        (0.02, "that is not more than 2 a second, but more while"),
    ],
)
def test_explain_tells_how_many_answers_are_run_on_full(
    file: Path, repository: Path, capsys: pytest.CaptureFixture[str], share: float, said: str
) -> None:
    file.write_text(f"default: {{drift: {{shadow_share: {share}}}}}\n")
    assert main(["policy", "explain", str(file), "--model", "sums", "--repository", str(repository)]) == 0
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--model", "absent"], "model 'absent' of repository"),
        (["--model", "sums", "--budget-ms", "0"], "--budget-ms is 0; it must be above 0"),
    ],
)
def test_explain_refuses_what_it_cannot_answer(
    file: Path, repository: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    assert main(["policy", "explain", str(file), "--repository", str(repository), *arguments]) == 2
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--url", "http://127.0.0.1:1"], "cannot be reached"),
        (["--url", "file:///etc/passwd"], "must start with http:// or https://"),
        (["--token-file", "absent"], "--token-file absent cannot be read"),
    ],
)
def test_show_says_why_it_cannot(capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str) -> None:
    assert main(["policy", "show", *arguments]) == 2
    assert problem in capsys.readouterr().err
