"""The page that lists the metrics and the metrics that there are."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

import service
from service.telemetry.metrics import Metrics
from tests.builders import make_model

PAGE = Path(service.__file__).parents[1] / "docs" / "observability.md"
ROW = re.compile(r"^\| (`[a-z0-9_`, ]+`) \| (counter|gauge|histogram) \| ([a-z_, ()]*)\|", re.MULTILINE)


def test_the_page_lists_every_metric_with_its_type_and_labels() -> None:
    metrics = Metrics()
    metrics.memory_limited(1)
    metrics.watch_tls()
    metrics.watch_recording(lambda: 0)
    metrics.model_loaded(make_model())
    metrics.watch(dict, lambda: 0, lambda: [0.0])
    families = text_string_to_metric_families(asyncio.run(metrics.render(""))[0].decode())
    found = {item.name.removeprefix("tiergate_"): item for item in families if item.name.startswith("tiergate_")}
    listed = {
        name.removesuffix("_total"): (kind, set(re.findall(r"[a-z_]+", labels)))
        for names, kind, labels in ROW.findall(PAGE.read_text(encoding="utf-8"))
        for name in re.findall(r"[a-z0-9_]+", names)
    }
    assert listed.keys() == found.keys()
    for name, (kind, labels) in listed.items():
        assert found[name].type == kind, name
        carried = {label for sample in found[name].samples for label in sample.labels} - {"le"}
        assert carried <= labels, name
