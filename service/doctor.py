"""What ``tiergate doctor`` looks at: each check says what it found, how bad that is, and what to do.

``fail``: a gateway with these settings does not start here, or would serve nothing. ``warn``: it serves, and something
is slower, smaller or less sure than it could be. ``ok``: nothing is to be done; what an absent optional part is for
stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.doctor_host import admin_token, certificates, cores, open_files, optional_parts, ports, processor
from service.doctor_models import examine_remotes, memory, policy, read_models, repository, speeds, unproven

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.engine.host import Host
    from service.findings import Finding
    from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Patient:
    """What is examined: the host, the settings that a gateway would have, whether its models are to be run.

    ``now_s`` is the Unix time.
    """

    host: Host
    settings: Settings
    now_s: float
    measures: bool = False


def examine(patient: Patient) -> Iterator[Finding]:
    """Yield every finding, the host's first; each as soon as it is known."""
    yield processor(patient.host)
    yield from cores(patient.host, patient.settings)
    yield open_files(patient.host, patient.settings)
    yield from ports(patient.settings)
    yield from certificates(patient.settings, patient.now_s)
    yield from admin_token(patient.settings)
    yield from optional_parts(patient.settings)
    models = list(read_models(patient.settings))
    remotes, findings = examine_remotes(patient.settings, models)
    yield from findings
    yield from repository(patient.settings, models, remotes)
    yield policy(patient.settings, models)
    yield from unproven(patient.host, patient.settings, models, remotes)
    yield memory(patient.host, patient.settings, models, remotes)
    if patient.measures:
        yield from speeds(models, remotes)
