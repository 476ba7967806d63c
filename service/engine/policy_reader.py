"""The policy file on disk."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import yaml
from pydantic import ValidationError

from service.domain.policy_file import PolicyFile

if TYPE_CHECKING:
    from pathlib import Path


class PolicyError(ValueError):
    """A policy file cannot be read or is not valid."""


def read_policy(path: Path | None) -> tuple[PolicyFile, str]:
    """Read a policy file; without one return the defaults. The second value is the content's sha256, '' for defaults.

    Raises:
        PolicyError: The file cannot be read, is not YAML, or breaks the schema.
    """
    if path is None:
        return PolicyFile(), ""
    try:
        content = path.read_bytes()
        raw = yaml.safe_load(content)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise PolicyError(f"policy file {path} cannot be read: {error}") from None
    try:
        policy = PolicyFile.model_validate(raw)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:5])
        raise PolicyError(f"policy file {path} is not valid: {problems}") from None
    return policy, hashlib.sha256(content).hexdigest()
