# ruff: noqa: INP001 - deploy is no package of ours: this is run from a clone
"""The Grafana dashboards: writes one JSON file for each page beside itself.

    python -m deploy.grafana.dashboards

Change the pages here, never the JSON: a test compares them. Another test asks every expression of a real Prometheus
that watches a real gateway. Panels are made with Grafana's own library, of the version pinned in ``pyproject.toml``,
whose dashboards later versions of Grafana read as well.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.drift import DRIFT
from deploy.grafana.fleet import FLEET
from deploy.grafana.overview import OVERVIEW
from deploy.grafana.panels import Page, build
from deploy.grafana.resources import RESOURCES
from deploy.grafana.slo import SLO

FOLDER: Final = Path(__file__).parent
PAGES: Final = (OVERVIEW, DRIFT, FLEET, RESOURCES, SLO)


def rendered(page: Page) -> str:
    """Return the text of a page's file."""
    return json.dumps(build(page), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    for each in PAGES:
        (FOLDER / f"{each.name}.json").write_text(rendered(each), encoding="utf-8")
