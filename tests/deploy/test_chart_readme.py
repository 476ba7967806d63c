"""The commands of deploy/README.md: what they name exists, and every helm command is carried out by Helm."""

from __future__ import annotations

import re
import shlex
from functools import reduce
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from service.cli import build_parser
from service.settings import SettingsError, read_settings
from tests.builders import ModelPlan, write_model
from tests.deploy.chart import CHART, NEWEST, ROOT
from tests.deploy.cluster import running_cluster
from tests.integration.gateway_process import running_gateway

if TYPE_CHECKING:
    from pathlib import Path

    from tests.deploy.chart import Helm

PAGE = ROOT / "deploy" / "README.md"
TEXT = PAGE.read_text(encoding="utf-8")
_ASKING = ("diff", "history", "rollback")


def commands() -> list[list[str]]:
    """Return every command of the shell blocks, in words."""
    blocks = re.findall(r"^```sh\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    return [shlex.split(line.replace("$REGISTRY", "registry.example")) for line in lines]


def of(program: str) -> list[list[str]]:
    return [words for words in commands() if words[0] == program]


def flags(words: list[str], name: str) -> list[str]:
    """Return the values of a flag that may be repeated."""
    return [value for flag, value in pairwise(words) if flag == name]


def set_values(words: list[str]) -> dict[str, Any]:
    """Return what --set and -f of a helm command say, as far as this page uses their language."""
    files = [yaml.safe_load((ROOT / path).read_text(encoding="utf-8")) for path in flags(words, "-f")]
    trees = [tree(*pair.split("=", 1)) for pair in flags(words, "--set")]
    return reduce(merged, [*files, *trees], {})


def tree(path: str, value: str) -> dict[str, Any]:
    leaf: Any = value[1:-1].split(",") if value.startswith("{") else {"true": True, "false": False}.get(value, value)
    for part in reversed(path.split(".")):
        name, index, _ = part.partition("[0]")
        leaf = {name: [leaf] if index else leaf}
    return dict(leaf)


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    both = {name: merged(one[name], other[name]) for name in one.keys() & other.keys() if isinstance(one[name], dict)}
    return one | other | both


def test_helm_commands_do_what_they_say_one_after_the_other(helm: Helm) -> None:
    done, values = 0, dict[str, Any]()
    with running_cluster(NEWEST) as cluster:
        for words in of("helm"):
            if words[1] in _ASKING:
                assert "answers" in words
                continue
            assert words[1] == "upgrade"
            assert "deploy/helm/tiergate" in words
            if "--install" in words:  # a page's beginning: nothing is kept from before
                values = set_values(words)
                assert helm.render_values(values).objects
                if not done:
                    helm.install(cluster, "answers", values)
            else:
                assert "--reset-then-reuse-values" in words
                values = merged(values, set_values(words))
                helm.upgrade(cluster, "answers", values)
            done += 1
    assert done >= 8


def test_kubectl_commands_name_what_the_chart_makes(helm: Helm) -> None:
    release = helm.render("defaults")
    made = {(item["kind"].lower(), item["metadata"]["name"]) for item in release.objects}
    named = [
        tuple(word.split("/")) for words in of("kubectl") for word in words if re.match(r"(deployment|service)/", word)
    ]
    assert len(named) >= 4
    assert set(named) <= made
    service = release.one("Service", "-tiergate")
    (forward,) = [words for words in of("kubectl") if "port-forward" in words]
    offered = {str(port["port"]) for port in service["spec"]["ports"]}
    assert {pair.partition(":")[2] for pair in forward if re.fullmatch(r"\d+:\d+", pair)} == offered


def test_labels_and_secrets_that_kubectl_names_are_those_of_the_chart(helm: Helm) -> None:
    values = [set_values(words) for words in of("helm") if words[1] == "upgrade"]
    job = helm.render_values(values[0]).one("Job")
    (selector,) = [value for words in of("kubectl") for value in flags(words, "--selector")]
    name, _, value = selector.partition("=")
    assert job["spec"]["template"]["metadata"]["labels"][name] == value
    secrets = [words[words.index("secret") + 2] for words in of("kubectl") if "secret" in words]
    used = [item for one in values for item in (one.get("tls", {}), one.get("admin", {}))]
    assert secrets == [name for item in used for key, name in item.items() if key in ("secretName", "existingSecret")]


def test_what_a_pod_is_told_to_run_is_a_command_of_ours() -> None:
    told = [words[words.index("--") + 1 :] for words in of("kubectl") if "--" in words]
    assert told
    for program, *arguments in told:
        assert program == "tiergate"
        assert build_parser().parse_args(arguments).run


def test_first_questions_are_answered_by_a_gateway(tmp_path: Path) -> None:
    urls = [words[-1] for words in of("curl")]
    assert len(urls) >= 3
    write_model(tmp_path / "repository", ModelPlan(name="digits"))
    with running_gateway(tmp_path / "repository") as gateway:
        for url in urls:
            status, _, content = gateway.call("GET", url.removeprefix("http://127.0.0.1:8000"))
            assert status == 200, url
            assert "digits" in str(content)


def test_images_are_built_from_files_that_exist() -> None:
    builds = [words for words in of("docker") if words[1] == "build"]
    assert len(builds) == 2
    assert all((ROOT / flags(words, "--file")[0]).exists() for words in builds)
    assert {flags(words, "--tag")[0] for words in builds} == {words[2] for words in of("docker") if words[1] == "push"}


def test_tiergate_commands_are_taken() -> None:
    texts = [words[1:] for words in of("tiergate")]
    assert texts
    for words in texts:
        assert build_parser().parse_args(words).run


def test_values_that_the_page_names_exist() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    sections = "|".join(name for name, value in values.items() if isinstance(value, dict))
    named = set(re.findall(rf"`((?:{sections})(?:\.\w+)+)`", TEXT))
    assert len(named) >= 10
    for path in named:
        if not path.startswith("settings."):
            node = values
            for part in path.split("."):
                assert part in node, path
                node = node[part]


@pytest.mark.parametrize("setting", [{"http_port": "tcp://10.0.0.1:8000"}, {"admin_host": "0.0.0.0"}])  # noqa: S104
def test_quoted_messages_are_those_of_the_gateway(setting: dict[str, str]) -> None:
    quoted = re.findall(r"^\| pod ends with `([^`]+)` \|", TEXT, flags=re.MULTILINE)
    assert len(quoted) == 2
    with pytest.raises(SettingsError) as caught:
        read_settings(dict(setting))
    assert any(message in str(caught.value) for message in quoted)


def test_linked_files_exist() -> None:
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", TEXT) if not link.startswith("http")]
    assert len(links) >= 8
    assert [link for link in links if not (PAGE.parent / link).exists()] == []


def test_figures_are_those_of_the_benchmarks() -> None:
    table = TEXT[TEXT.index("<!-- sizing:begin") : TEXT.index("<!-- sizing:end")]
    figures = [
        float(text.replace(",", "")) for text in re.findall(r"\| ([\d,]+) \| [\d.]+ \| [\d.]+ \|$", table, re.MULTILINE)
    ]
    assert len(figures) >= 6
    assert min(figures) > 0
