"""Names and ids as they come off the wire: what is allowed, and how a refused one is shown."""

from __future__ import annotations

import itertools
import re
import secrets
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from service.domain.errors import InvalidRequest, ModelNotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""Models, variants, tiers and hardware classes; nothing that a path or a header could misread."""

NAME_RULE: Final = "a name of 1 to 64 characters matching [a-z0-9][a-z0-9._-]*"

_PIN: Final = "--"
_VERSION: Final = re.compile(r"[1-9][0-9]{0,8}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_MAX_ID_LENGTH: Final = 256
_MAX_SHOWN: Final = 80

_MAX_NAME_LENGTH: Final = 256
_MAX_TENSORS: Final = 1024

_process: Final = secrets.token_hex(6)
_counter: Final = itertools.count(1)


def shown(value: object) -> str:
    """Return a value as an error message may show it: its repr, at most 80 characters of it."""
    if isinstance(value, str | bytes):
        value = value[:_MAX_SHOWN]
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."


@lru_cache(maxsize=1024)
def split_model_name(name: str) -> tuple[str, str | None]:
    """Return the model and the variant that ``model--variant`` pins, or ``None`` where nothing is pinned.

    Raises:
        ModelNotFound: No model can have this name.
    """
    model, dashes, variant = name.partition(_PIN)
    if NAME.fullmatch(model) is None or (dashes and NAME.fullmatch(variant) is None):
        message = f"no model is named {shown(name)}; allowed is {NAME_RULE}, and '--' with a variant's name after it"
        raise ModelNotFound(message)
    return model, variant if dashes else None


def check_version(version: str, model: str) -> str:
    """Return the version, which may be empty.

    Raises:
        ModelNotFound: The version is not a decimal number.
    """
    if version and _VERSION.fullmatch(version) is None:
        message = f"model '{model}' has no version {shown(version)}; versions are whole numbers from 1"
        raise ModelNotFound(message)
    return version


def check_request_id(request_id: str) -> str:
    """Return the id of a request.

    Raises:
        InvalidRequest: It is too long or holds control characters.
    """
    if len(request_id) > _MAX_ID_LENGTH:
        message = f"the request id has {len(request_id)} characters; at most {_MAX_ID_LENGTH} are allowed"
        raise InvalidRequest(message)
    if not request_id.isprintable() and _CONTROL.search(request_id) is not None:
        message = f"the request id {shown(request_id)} has control characters; printable text is allowed"
        raise InvalidRequest(message)
    return request_id


def check_tensor_names(kind: str, names: Sequence[str]) -> None:
    """Check the names of a request's inputs or requested outputs, before anything repeats them in a message.

    Raises:
        InvalidRequest: There are too many, or one is empty, too long, or given twice.
    """
    if len(names) > _MAX_TENSORS:
        raise InvalidRequest(f"the request has {len(names)} {kind}s; at most {_MAX_TENSORS} are allowed")
    for name in names:
        if not 0 < len(name) <= _MAX_NAME_LENGTH:
            message = f"{kind} {shown(name)} has a name of {len(name)} characters; allowed are 1 to {_MAX_NAME_LENGTH}"
            raise InvalidRequest(message)
    if len(names) > 1 and len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidRequest(f"the request has {kind} {shown(twice)} twice; names must differ")


def new_request_id() -> str:
    """Return an id that no other request of this process has, nor, for all practical purposes, of any other."""
    return f"{_process}-{next(_counter):x}"
