"""Bring in what is written elsewhere: settings and policy from the code, alert rules, dashboards, measured figures.

Helm reads no file outside a chart, so the chart has copies; the README's sizing guide has figures of the benchmarks.
From the root of a clone ``python deploy/sync.py`` writes them; ``python deploy/sync.py --check`` tells what is out of
date and exits with 1, and the test suite asks the same.
"""  # noqa: INP001 - a script

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # for a clone in which nothing is installed

from service.domain.policy_file import policy_schema  # noqa: E402 - after the path
from service.domain.remotes_file import RemotesFile  # noqa: E402 - after the path
from service.settings import Settings  # noqa: E402

README: Final = ROOT / "deploy" / "README.md"
BENCHMARKS: Final = ROOT / "docs" / "benchmarks.md"
CHART: Final = ROOT / "deploy" / "helm" / "tiergate"
SCHEMA_SOURCE: Final = ROOT / "deploy" / "helm" / "values.schema.yaml"
CHART_DECIDES: Final = frozenset(
    {"repository", "policy", "remotes", "host", "admin_host", "admin_token_file", "lanes", "pin_lanes"}
    | {name for name in Settings.model_fields if name.startswith(("tls_", "admin_tls_"))}
)
"""Settings that no value may give: they follow from other values."""
CHART_NEEDS: Final = frozenset({"http_port", "grpc_port", "admin_port", "drain_grace_s", "drain_timeout_s"})
"""Settings by which the chart goes too: a value cannot be taken away."""
_FIGURES: Final = (
    r"^\| (\w+) \| (HTTP JSON|HTTP binary|gRPC) \| (1|16|64) \| tiergate \| ([\d,]+) \| ([\d.]+) \| ([\d.]+) \|"
)
_FORMATS: Final = frozenset({"path"})  # pydantic's own, unknown to JSON schema


def wanted() -> dict[Path, str]:
    """Return the files that the chart should have, by path, as text."""
    found = {CHART / "values.schema.json": json.dumps(values_schema(), indent=1) + "\n"}
    for source, suffix, target in (("prometheus/rules", "yaml", "prometheus"), ("grafana", "json", "grafana")):
        for path in sorted((ROOT / "deploy" / source).rglob(f"*.{suffix}")):
            found[CHART / "files" / target / path.name] = path.read_text(encoding="utf-8")
    return found | {README: with_figures(README.read_text(encoding="utf-8"), BENCHMARKS.read_text(encoding="utf-8"))}


def with_figures(page: str, benchmarks: str) -> str:
    """Return the README with the gateway's rows of the measured tables in its marked place."""
    rows = re.findall(_FIGURES, benchmarks, flags=re.MULTILINE)
    table = "| model | protocol | connections | requests/s | p50 ms | p99 ms |\n|---|---|---:|---:|---:|---:|\n"
    table += "".join(f"| {' | '.join(row)} |\n" for row in rows)
    begin, end = (re.search(rf"^<!-- sizing:{word}.*-->\n", page, flags=re.MULTILINE) for word in ("begin", "end"))
    if begin is None or end is None:
        raise SystemExit(f"{README} has no place for figures: <!-- sizing:begin --> and <!-- sizing:end -->")
    return page[: begin.end()] + table + page[end.start() :]


def present() -> dict[Path, str]:
    """Return the files of that kind that it has."""
    paths = [README, CHART / "values.schema.json", *(path for path in (CHART / "files").rglob("*") if path.is_file())]
    return {path: path.read_text(encoding="utf-8") for path in paths if path.exists()}


def values_schema() -> dict[str, Any]:
    """Return the schema of the chart's values."""
    schema: dict[str, Any] = yaml.safe_load(SCHEMA_SOURCE.read_text(encoding="utf-8"))
    schema["properties"]["settings"] = _from_code("setting", Settings.model_json_schema(), schema["definitions"])
    schema["properties"]["policy"] = _from_code("policy", policy_schema(), schema["definitions"])
    remotes = _from_code("remotes", RemotesFile.model_json_schema(), schema["definitions"])
    schema["properties"]["remotes"] = remotes["properties"]["remotes"]
    settings = schema["properties"]["settings"]["properties"]
    for name in CHART_DECIDES & set(settings):
        del settings[name]
    # Names, as the environment and flags write them, or as a list.
    settings["required_models"] = {"type": ["string", "array"], "items": {"type": "string"}}
    for port in ("http_port", "grpc_port", "admin_port"):
        settings[port]["minimum"] = 1  # a Service cannot follow a port that is chosen at the start
    schema["properties"]["settings"]["required"] = sorted(CHART_NEEDS)
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "tiergate", **_close(schema)}


def _from_code(prefix: str, schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return a model's schema without what only people need; its parts go to ``definitions``."""
    parts = schema.pop("$defs", {})
    for name, part in parts.items():
        definitions[f"{prefix}-{name}"] = _plain(part, prefix)
    plain: dict[str, Any] = _plain(schema, prefix)
    return plain


def _plain(node: Any, prefix: str) -> Any:  # noqa: ANN401 - JSON
    if isinstance(node, list):
        return [_plain(item, prefix) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {}
    for key, value in node.items():
        if key == "$ref":
            kept[key] = value.replace("#/$defs/", f"#/definitions/{prefix}-")
        elif key in ("properties", "$defs"):
            kept[key] = {name: _plain(item, prefix) for name, item in value.items()}
        elif key not in ("title", "default", "description") and not (key == "format" and value in _FORMATS):
            kept[key] = _plain(value, prefix)
    return kept


def _close(node: Any) -> Any:  # noqa: ANN401 - JSON
    """Refuse unknown names in every object that does not say otherwise."""
    if isinstance(node, list):
        return [_close(item) for item in node]
    if not isinstance(node, dict):
        return node
    closed = {key: _close(value) for key, value in node.items()}
    if closed.get("type") == "object" and "properties" in closed:
        closed.setdefault("additionalProperties", False)
    return closed


def stale() -> list[str]:
    """Return the names of the files in the chart that are missing, out of date or left over."""
    want, have = wanted(), present()
    return sorted(path.relative_to(ROOT).as_posix() for path in {*want, *have} if want.get(path) != have.get(path))


def main() -> int:
    """Write, or check; return the exit status."""
    if "--check" in sys.argv[1:]:
        for name in (found := stale()):
            sys.stderr.write(f"{name} is out of date; run: python deploy/sync.py\n")
        return bool(found)
    want = wanted()
    for path in set(present()) - set(want):
        path.unlink()
    for path, text in want.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
