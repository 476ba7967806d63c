"""Models, policy and remotes, as ``tiergate doctor`` sees them: does it fit together, and fit this host."""

from __future__ import annotations

import socket
from collections import Counter
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from service.bento_store import repository_folder
from service.domain.errors import BackendFailed
from service.engine.copies import Copies
from service.engine.node import Node
from service.engine.opening import Source, open_onnx_variant, verify
from service.engine.policy_reader import PolicyError, read_policy
from service.engine.remotes_reader import RemotesError, read_certificates, read_remotes
from service.engine.repository import Repository, describe
from service.findings import Finding
from service.policy.pools import pool_name
from service.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.domain.remotes_file import RemotesFile
    from service.engine.host import Host
    from service.engine.repository import StoredModel
    from service.settings import Settings

_MIB: Final = 2**20
_PROCESS_BYTES: Final = 110 * _MIB
"""What a gateway takes beside its variants (docs/runbook.md, TiergateMemoryOverBudget)."""
_CONNECTS_S: Final = 1.0
_RUNS: Final = 15
_AS_BUILT: Final = (0.5, 2.0)


def repository(settings: Settings, models: list[StoredModel], remotes: RemotesFile) -> Iterator[Finding]:
    """Tell of every model whether the files that this gateway would load are what the manifest says."""
    if not models:
        found = f"{settings.repository} cannot be read, or has no models"
        yield Finding(
            "repository", "fail", found, "tiergate build RECIPE --output FOLDER, or name the folder of models"
        )
    able = set()
    for stored in models:
        if stored.manifest is None:
            yield Finding(f"model {stored.name}", "warn", stored.problem, "build it again, or take its folder away")
            continue
        broken = dict(_broken(stored, remotes))
        published = [item.name for item in stored.manifest.published]
        shown = f"version {stored.version}: {', '.join(published)}"
        if len(broken) < len(published):
            able.add(stored.name)
        if broken:
            told = "; ".join(f"{name}: {why}" for name, why in broken.items())
            yield Finding(f"model {stored.name}", "warn", told, "copy these files again, or build the model again")
        else:
            yield Finding(f"model {stored.name}", "ok", shown)
    if models and not able:
        yield Finding("repository", "fail", "no model has a variant that can be loaded", "see the models above")
    if missing := [name for name in settings.required_models if name not in able]:
        found = f"required_models names {', '.join(missing)}, which cannot be loaded: this server is never ready"
        yield Finding("repository", "fail", found, "build them, or take the names out")


def policy(settings: Settings, models: list[StoredModel]) -> Finding:
    """Tell whether the policy file is valid, and names what the repository has."""
    if settings.policy is None:
        return Finding("policy", "ok", "none is given: the defaults hold", "`tiergate tune MODEL` writes one")
    try:
        text = read_policy(settings.policy)
    except PolicyError as error:
        return Finding(
            "policy", "fail", str(error), "`tiergate policy validate` tells more; `policy schema` what is allowed"
        )
    built = {item.name: {one.name for one in item.manifest.published} for item in models if item.manifest is not None}
    odd = [f"models.{name} is not in the repository" for name in text.policy.models if name not in built]
    out = [
        f"models.{name}.variants allows none of {', '.join(sorted(built[name]))}"
        for name in built
        if (allowed := text.policy.of(name).variants) and not built[name] & set(allowed)
    ]
    if out:
        return Finding("policy", "fail", "; ".join(out), "name variants that are built")
    if odd:
        return Finding("policy", "warn", "; ".join(odd), "take these sections out, or build the models")
    return Finding("policy", "ok", f"{settings.policy} is valid; digest {text.digest[:12]}")


def unproven(host: Host, settings: Settings, models: list[StoredModel], remotes: RemotesFile) -> Iterator[Finding]:
    """Tell which int8 variants are not known to be right on this processor, and what is done about them."""
    node = Node(host.isa, settings.unproven_int8, elsewhere=lambda name: remotes.remotes.get(name, {}).keys())
    for stored in models:
        if stored.manifest is None:
            continue
        for item in node.suit(stored.manifest)[1]:
            done = {
                "precise": "it is computed exactly, which is slower",
                "avoid": "routing does not choose it",
                "allow": "it is routed all the same",
            }[item.treatment]
            advice = "build it with the preset portable, or on this kind of node; --unproven-int8 says what is done"
            yield Finding(f"int8 {stored.name}--{item.variant}", "warn", f"{item.why}; {done}", advice)


def memory(host: Host, settings: Settings, models: list[StoredModel], remotes: RemotesFile) -> Finding:
    """Tell whether the variants that this process would hold fit into its memory, or the memory budget."""
    copies: dict[object, int] = {}
    for source in _sources(models, remotes):
        copies[source.weights] = source.variant.memory_bytes
    needed, room = sum(copies.values()), host.usable_bytes - _PROCESS_BYTES
    budget = settings.memory_budget_bytes
    shown = f"all variants take {_mib(needed)}; this process may take {_mib(host.usable_bytes)}"
    if budget is None:
        advice = f"--memory-budget-mb {max(1, room // _MIB)}: the rest is loaded when a request needs it"
        return Finding("memory", "ok", shown) if needed <= room else Finding("memory", "fail", shown, advice)
    shown += f", of which variants {_mib(budget)}"
    if budget > room:
        return Finding(
            "memory", "fail", shown, f"--memory-budget-mb {max(1, room // _MIB)}: the process itself needs room"
        )
    if copies and min(copies.values()) > budget:
        return Finding(
            "memory", "fail", shown, f"raise --memory-budget-mb: the smallest takes {_mib(min(copies.values()))}"
        )
    if needed > budget:
        return Finding(
            "memory", "warn", shown, "some are loaded on demand, and requests wait for them; raise the budget"
        )
    return Finding("memory", "ok", shown)


def speeds(models: list[StoredModel], remotes: RemotesFile) -> Iterator[Finding]:
    """Run every variant a little; tell how its time here compares with the manifest's."""
    for source in _sources(models, remotes):
        name, copies = f"speed {source.info.name}--{source.variant.name}", Copies(open_onnx_variant)
        try:
            ratio = copies.open(source, _RUNS).ratio
        except BackendFailed as error:
            yield Finding(name, "warn", str(error), "it is left out; see the model above")
            continue
        finally:
            copies.leave([source])
        p50_ms = source.variant.profile.at(1).p50_s * 1e3 if source.variant.profile.cells else 0.0
        shown = f"{p50_ms * ratio:.3f} ms a row here, {p50_ms:.3f} ms where it was built: {ratio:.2f} times"
        is_alike = _AS_BUILT[0] <= ratio <= _AS_BUILT[1]
        advice = (
            ""
            if is_alike
            else "every start corrects the profile by this; `tiergate measure` on such a node gives a better one"
        )
        yield Finding(name, "ok" if ratio <= _AS_BUILT[1] else "warn", shown, advice)


def read_models(settings: Settings) -> Iterator[StoredModel]:
    """Yield every model of the repository; none where it cannot be read."""
    try:
        yield from Repository(repository_folder(settings.repository)).scan()
    except (BackendFailed, SettingsError):
        return


def examine_remotes(settings: Settings, models: list[StoredModel]) -> tuple[RemotesFile, list[Finding]]:
    """Return the remotes file, empty where there is none that can be used, and what is to be said of it."""
    if settings.remotes is None:
        return read_remotes(None), []
    try:
        file = read_remotes(settings.remotes)
        read_certificates(file, settings.remotes.parent)
    except RemotesError as error:
        return read_remotes(None), [Finding("remotes", "fail", str(error), "see docs/remote.md for what is allowed")]
    items = [item for variants in file.remotes.values() for item in variants.values()]
    addresses = Counter(address for item in items for address in item.endpoints)
    away = [address for address in addresses if not _answers(address)]
    findings = [Finding("remotes", "ok", f"all {len(addresses)} servers accept connections")]
    if away:
        advice = "start them, or let the way there through; until then requests go to other variants"
        findings = [Finding("remotes", "warn", f"no connection to {', '.join(away)}", advice)]
    if odd := _not_built(file, models):
        advice = "these are left out: correct the names, or publish the variants"
        findings.append(Finding("remotes", "warn", f"the repository has no {', '.join(odd)}", advice))
    return file, findings


def _not_built(file: RemotesFile, models: list[StoredModel]) -> list[str]:
    """Return what the file names and no manifest publishes, as MODEL--VARIANT."""
    built = {item.name: item.manifest for item in models if item.manifest is not None}
    published = {(name, one.name) for name, manifest in built.items() for one in manifest.published}
    named = [(model, variant) for model, variants in file.remotes.items() for variant in variants]
    return [pool_name(*pair) for pair in named if pair not in published]


def _answers(address: str) -> bool:
    parts = urlsplit(address)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=_CONNECTS_S).close()
    except OSError:
        return False
    return True


def _sources(models: list[StoredModel], remotes: RemotesFile) -> Iterator[Source]:
    """Yield what this process would hold of these models."""
    for stored in models:
        if stored.manifest is not None:
            info, elsewhere = describe(stored.manifest), remotes.remotes.get(stored.name, {})
            yield from (Source(stored, info, item) for item in stored.manifest.published if item.name not in elsewhere)


def _broken(stored: StoredModel, remotes: RemotesFile) -> Iterator[tuple[str, str]]:
    for source in _sources([stored], remotes):
        try:
            verify(source)
        except BackendFailed as error:
            yield source.variant.name, str(error)


def _mib(size_bytes: float) -> str:
    return f"{size_bytes / _MIB:,.1f} MiB"
