"""The policy file on disk: read with care, and replaced in one step.

What is read may come over the wire from an administrator, so that it must not cost more than it weighs: at most
``MOST_BYTES``, no merge keys (``<<``), which can multiply, and plain data only. A problem is told with its line.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import reprlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml
from pydantic import ValidationError

from service.domain.policy_file import DriftRules, HardwareClass, HardwareMatch, ModelPolicy, PolicyFile, Provenance
from service.domain.policy_text import PolicyText

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic_core import ErrorDetails

MOST_BYTES: Final = 2**20
_MOST_PROBLEMS: Final = 10
_MERGE: Final = "tag:yaml.org,2002:merge"
_SECTIONS: Final = {"default": ModelPolicy, "models": ModelPolicy, "provenance": Provenance}
_MODE: Final = 0o644


class PolicyError(ValueError):
    """A policy cannot be read or kept, or is not valid; ``problems`` says why, one line each."""

    def __init__(self, about: str, problems: Sequence[str]) -> None:
        """Say what it is about and keep the problems."""
        super().__init__(f"{about}: {'; '.join(problems)}")
        self.problems = tuple(problems)


def read_policy(path: Path | None) -> PolicyText:
    """Read a policy file; without one return the defaults, written out.

    Raises:
        PolicyError: The file cannot be read, is not YAML, or breaks the schema.
    """
    if path is None:
        return default_policy()
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise PolicyError(f"policy file {path} cannot be read", [error.strerror or str(error)]) from None
    return parse_policy(content, f"policy file {path}")


def parse_policy(content: bytes, about: str) -> PolicyText:
    """Turn the bytes of a policy, YAML or JSON, into the policy; ``about`` names them in an error.

    Raises:
        PolicyError: They are too many, are not YAML, or break the schema.
    """
    if len(content) > MOST_BYTES:
        raise PolicyError(f"{about} is too large", [f"{MOST_BYTES} bytes are allowed"])
    try:
        root, raw = _parse(content)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise PolicyError(f"{about} cannot be read", [" ".join(str(error).split())]) from None
    if problems := [*_doubtful(root)]:
        raise PolicyError(f"{about} is not valid", problems[:_MOST_PROBLEMS])
    try:
        policy = PolicyFile.model_validate(raw)
    except ValidationError as error:
        items = error.errors(include_url=False)[:_MOST_PROBLEMS]
        raise PolicyError(f"{about} is not valid", [_in_words(item, root) for item in items]) from None
    return PolicyText(policy, content, hashlib.sha256(content).hexdigest())


def default_policy() -> PolicyText:
    """Return the policy that holds where there is no file, written out as YAML."""
    policy = PolicyFile()
    content = yaml.safe_dump(policy.model_dump(mode="json", exclude_none=True), sort_keys=False).encode()
    return PolicyText(policy, content, hashlib.sha256(content).hexdigest())


def write_policy(path: Path, content: bytes) -> None:
    """Put a policy in a file's place at once, so that a reader sees the old or the new one; links are followed.

    Raises:
        PolicyError: The file or its folder cannot be written.
    """
    target = path.resolve()
    try:
        mode = target.stat().st_mode if target.exists() else _MODE
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, mode & 0o777)
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            Path(name).replace(target)
        except OSError:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise PolicyError("the policy file cannot be written", [error.strerror or str(error)]) from None


def _parse(content: bytes) -> tuple[yaml.Node | None, object]:
    """Return the document with its places, and its plain data."""
    loader = yaml.SafeLoader(content)
    try:
        root = loader.get_single_node()
        if root is None or any(_merges(root)):
            # Merging is done while the data is made: what is refused must be refused before.
            return root, None
        return root, loader.construct_document(root)
    finally:
        loader.dispose()


def _doubtful(root: yaml.Node | None) -> Iterator[str]:
    """Yield what YAML allows and a policy must not have: merge keys, and names that are given twice."""
    if root is None:
        yield "it is empty"
        return
    yield from _merges(root)
    for mapping in _mappings(root):
        seen: set[str] = set()
        for key in [key for key, _ in mapping.value if isinstance(key, yaml.ScalarNode)]:
            if key.value in seen:
                yield f"line {key.start_mark.line + 1}: '{key.value[:64]}' is given twice"
            seen.add(key.value)


def _merges(root: yaml.Node) -> Iterator[str]:
    for mapping in _mappings(root):
        for key, _ in mapping.value:
            if key.tag == _MERGE:
                yield f"line {key.start_mark.line + 1}: merge keys (<<) are not allowed"


def _mappings(root: yaml.Node) -> Iterator[yaml.MappingNode]:
    """Yield every mapping once, however many aliases lead to it."""
    pending, seen = [root], set()
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield node
            pending += [part for pair in reversed(node.value) for part in reversed(pair)]
        elif isinstance(node, yaml.SequenceNode):
            pending += reversed(node.value)


def _in_words(item: ErrorDetails, root: yaml.Node | None) -> str:
    loc = item["loc"]
    place, line = ".".join(map(str, loc)) or "the policy", f"line {_line(loc, root)}: "
    if item["type"] == "extra_forbidden":
        known = _known_fields(loc)
        near = difflib.get_close_matches(str(loc[-1]), known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"allowed are {', '.join(known)}"
        return f"{line}{place[:200]} is not a field; {hint}"
    if item["type"] == "missing":
        return f"{line}{place[:200]} is missing"
    problem = item["msg"].replace("Input should", "it must").replace("Value error,", "it")
    return f"{line}{place[:200]} is {reprlib.repr(item['input'])}; {problem}"


def _known_fields(loc: tuple[int | str, ...]) -> list[str]:
    section: Any = PolicyFile
    if len(loc) > 1:
        in_class = HardwareMatch if "match" in loc[2:-1] else HardwareClass
        section = DriftRules if "drift" in loc[1:-1] else _SECTIONS.get(str(loc[0]), in_class)
    return list(section.model_fields)


def _line(loc: tuple[int | str, ...], root: yaml.Node | None) -> int:
    """Return the line of a place in the document, or of what is nearest above it."""
    node, line = root, 1
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == str(part)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            found = (node.value[part], node.value[part])
        else:
            found = None
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line
