"""The life of a release on a small API server: installed, upgraded, gone; what rolls pods, and what does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.deploy.chart import CASES, NEWEST, case_values
from tests.deploy.cluster import running_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.deploy.chart import Helm, Release
    from tests.deploy.cluster import Cluster


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with running_cluster(NEWEST) as running:
        yield running


def template(release: Release) -> Any:  # noqa: ANN401 - JSON
    return release.one("Deployment")["spec"]["template"]


@pytest.mark.parametrize("case", CASES)
def test_cluster_holds_what_was_rendered_and_nothing_after_uninstall(helm: Helm, cluster: Cluster, case: str) -> None:
    release = helm.install(cluster, "answers", case_values(case))
    assert cluster.kinds() == sorted(item["kind"] for item in release.objects)
    held = {item["metadata"]["name"]: item for item in cluster.objects.values() if item["kind"] == "ConfigMap"}
    assert all(held[item["metadata"]["name"]]["data"] == item["data"] for item in release.of("ConfigMap"))
    helm.uninstall(cluster, "answers")
    # Built models outlive the release.
    assert cluster.kinds() == ["PersistentVolumeClaim"] * len(release.of("PersistentVolumeClaim"))


def test_new_policy_changes_the_config_map_and_rolls_no_pod(helm: Helm, cluster: Cluster) -> None:
    before = helm.install(cluster, "answers", {})
    after = helm.upgrade(cluster, "answers", {"policy": {"default": {"default_budget_ms": 7}}})
    assert template(after) == template(before)
    (held,) = [item for where, item in cluster.objects.items() if where.endswith("/configmaps/answers-tiergate-policy")]
    assert "default_budget_ms: 7" in held["data"]["policy.yaml"]


def test_other_servers_change_the_config_map_and_roll_no_pod(helm: Helm, cluster: Cluster) -> None:
    def values(*endpoints: str) -> dict[str, Any]:
        return {"remotes": {"digits": {"full": {"endpoints": list(endpoints)}}}}

    before = helm.install(cluster, "answers", values("grpc://one:8001"))
    after = helm.upgrade(cluster, "answers", values("grpc://one:8001", "grpc://two:8001"))
    assert template(after) == template(before)
    (held,) = [item for where, item in cluster.objects.items() if where.endswith("/answers-tiergate-remotes")]
    assert "grpc://two:8001" in held["data"]["remotes.yaml"]


@pytest.mark.parametrize(
    "values",
    [
        {"settings": {"max_connections": 10}},
        {"remotes": {"digits": {"full": {"endpoints": ["grpc://triton:8001"]}}}},
        {"admin": {"enabled": True, "token": "another"}},
    ],
    ids=["settings", "remotes", "token"],
)
def test_what_is_read_at_the_start_rolls_the_pods(helm: Helm, cluster: Cluster, values: dict[str, Any]) -> None:
    before = helm.install(cluster, "answers", {"admin": {"enabled": True, "token": "one"}})
    after = helm.upgrade(cluster, "answers", {"admin": {"enabled": True, "token": "one"}} | values)
    assert template(after)["metadata"]["annotations"] != template(before)["metadata"]["annotations"]


def test_back_to_the_former_values_is_back_to_the_former_objects(helm: Helm, cluster: Cluster) -> None:
    first = helm.install(cluster, "answers", {})
    helm.upgrade(cluster, "answers", {"image": {"tag": "0.2.0"}, "replicaCount": 5})
    assert helm.upgrade(cluster, "answers", {}).objects == first.objects


def test_another_recipe_is_another_job_and_the_same_one_is_the_same(helm: Helm, cluster: Cluster) -> None:
    def job(recipe: str, action: str = "upgrade") -> str:
        release = getattr(helm, action)(cluster, "answers", {"build": {"enabled": True, "recipe": recipe}})
        return str(release.one("Job")["metadata"]["name"])

    first = job("digits", "install")
    assert job("digits") == first
    assert job("images") != first


def test_two_releases_live_side_by_side(helm: Helm, cluster: Cluster) -> None:
    one = helm.install(cluster, "one", case_values("gpu"))
    two = helm.install(cluster, "two", case_values("gpu"))
    assert len(cluster.objects) == len(one.objects) + len(two.objects)
    selectors = [release.one("Deployment")["spec"]["selector"]["matchLabels"] for release in (one, two)]
    assert selectors[0] != selectors[1]
