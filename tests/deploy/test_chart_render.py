"""The chart through Helm itself, and what comes out through the schemas of Kubernetes and of custom resources."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.deploy.chart import (
    CASES,
    CHART,
    NEWEST,
    case_values,
    custom_problems,
    kserve_problems,
    minors,
    missing_node_tools,
    pods,
    problems,
)
from tests.deploy.cluster import running_cluster

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.deploy.chart import Helm, Object, Release

_INFORMATION = 1
_OLDEST_WITH_IMAGES = (1, 31)


def number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def custom(releases: Mapping[str, Release]) -> list[Object]:
    """Return the objects that are not Kubernetes' own."""
    return [item for release in releases.values() for item in release.objects if problems(item, NEWEST) is None]


def test_the_cases_that_matter_are_there() -> None:
    assert set(CASES) >= {"defaults", "minimal", "maximal", "kserve", "keda", "mtls", "gpu"}


def test_lint_has_nothing_to_say(helm: Helm) -> None:
    with running_cluster(NEWEST) as cluster:
        said = helm.lint(cluster)
    assert said["TotalChartsLinted"] == 1
    assert said["Errors"] is None
    assert [message for message in said["Messages"] or [] if message["Severity"] > _INFORMATION] == []


def test_newest_version_here_is_the_newest_with_schemas(helm: Helm) -> None:
    del helm
    assert minors()[-1] == NEWEST
    assert minors()[0] == "1.25.0"


def boundaries() -> list[str]:
    """Return the versions from which on the templates write something else, the oldest supported one first."""
    texts = [path.read_text(encoding="utf-8") for path in (CHART / "templates").iterdir()]
    found = {version for text in texts for version in re.findall(r'semverCompare "[<>=]+([\d.]+)-0"', text)}
    return sorted({minors()[0], *found}, key=number)


@pytest.mark.parametrize("case", CASES)
def test_every_case_fits_every_kubernetes(helm: Helm, case: str) -> None:
    versions = [version for version in minors() if case != "image" or number(version) >= _OLDEST_WITH_IMAGES]
    assert len(versions) >= 7
    renderings: dict[str, Release] = {}
    for version in versions:
        since = max((one for one in boundaries() if number(one) <= number(version)), key=number)
        if since not in renderings:
            renderings[since] = helm.render(case, since)
        release = renderings[since]
        judged = [problems(item, version) for item in release.objects]
        assert [problem for found in judged for problem in found or []] == [], f"Kubernetes {version}"
        assert sum(found is not None for found in judged) >= 4


def test_schemas_find_a_field_that_does_not_exist(releases: Mapping[str, Release]) -> None:
    service = releases["defaults"].one("Service", "-tiergate")
    assert problems(service, NEWEST) == []
    wrong = {**service, "spec": {**service["spec"], "prots": []}}
    assert "prots" in str(problems(wrong, NEWEST))


@pytest.mark.parametrize("case", ["maximal", "gpu"])
def test_long_names_leave_room_for_the_labels_that_kubernetes_makes_of_them(helm: Helm, case: str) -> None:
    release = helm.render_values({**case_values(case), "fullnameOverride": "a" * 63})
    most = {"Job": 63, "StatefulSet": 63 - len("-0123456789")}
    lengths = {item["kind"]: len(item["metadata"]["name"]) for item in release.objects if item["kind"] in most}
    assert lengths
    assert all(length <= most[kind] for kind, length in lengths.items()), lengths
    for triton in release.of("StatefulSet"):
        remotes = release.one("ConfigMap", "-remotes")["data"]["remotes.yaml"]
        assert f"grpc://{triton['metadata']['name']}-0.{triton['spec']['serviceName']}." in remotes


def test_image_volumes_are_refused_where_kubernetes_has_none(helm: Helm) -> None:
    said = helm.refusal(case_values("image"), "1.30.0")
    assert "models.source is image" in said
    assert "pvc or init" in said


def test_kubernetes_that_is_too_old_is_refused(helm: Helm) -> None:
    assert "requires kubeVersion: >=1.25.0-0" in helm.refusal({}, "1.24.0")


def test_custom_resources_fit_their_published_models(releases: Mapping[str, Release]) -> None:
    if why := missing_node_tools():
        pytest.skip(why)
    items = [item for item in custom(releases) if "kserve" not in item["apiVersion"]]
    assert {item["kind"] for item in items} == {
        *("ScaledObject", "ServiceMonitor", "PrometheusRule", "HTTPRoute", "GRPCRoute")
    }
    assert custom_problems(items) == []
    wrong: list[Object] = [{**item, "spec": {**item["spec"], "unheard": 1}} for item in items]
    assert all("unheard is no field" in problem for problem in custom_problems(wrong))
    assert len(custom_problems(wrong)) == len(items)


def test_kserve_objects_have_only_fields_that_kserve_has(releases: Mapping[str, Release]) -> None:
    items = [item for item in custom(releases) if "kserve" in item["apiVersion"]]
    assert {item["kind"] for item in items} == {"ServingRuntime", "InferenceService"}
    assert [problem for item in items for problem in kserve_problems(item)] == []
    runtime = releases["kserve"].one("ServingRuntime")
    wrong = {**runtime, "spec": {**runtime["spec"], "modelFormats": []}}
    assert kserve_problems(wrong) == ["ServingRuntime.spec.modelFormats is no field"]


@pytest.mark.parametrize("version", ["1.25.0", NEWEST])
def test_containers_of_the_serving_runtime_fit_kubernetes(releases: Mapping[str, Release], version: str) -> None:
    spec = next(spec for item, spec in pods(releases["kserve"]) if item["kind"] == "ServingRuntime")
    pod: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "runtime"}}
    pod["spec"] = {key: spec[key] for key in ("containers", "volumes")}
    assert problems(pod, version) == []


def test_notes_name_the_next_commands(releases: Mapping[str, Release]) -> None:
    assert "rollout status deployment/answers-tiergate" in releases["defaults"].notes
    assert "curl http://127.0.0.1:8000/v2/models" in releases["defaults"].notes
    assert "-k https://" in releases["tls"].notes
    assert "logs --follow" in releases["maximal"].notes
    assert "get inferenceservice answers-tiergate" in releases["kserve"].notes
    assert "deployment/" not in releases["kserve"].notes
