"""``tiergate policy``: check, compare, explain, read and replace the thresholds that a gateway goes by."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from service.domain.policy_text import PolicyText
    from service.domain.variants import ModelInfo
    from service.policy_client import Site

_REFUSED: Final = 2
_DEFAULT_URL: Final = "http://127.0.0.1:8002"


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``policy`` and its own commands."""
    parser = subparsers.add_parser(
        "policy",
        help="check, compare, explain, read and replace a policy file",
        description="Work with the policy file: the thresholds by which `tiergate serve` routes and schedules.",
    )
    parser.set_defaults(json=False)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    validate = _add(commands, "validate", _validate, "say whether a file is a valid policy, and what is wrong with it")
    _add_file(validate)
    _add_repository(validate, None, "check that it has the models and variants that the file names")
    diff = _add(commands, "diff", _diff, "show the fields in which two policies differ, defaults included")
    diff.add_argument("before", type=Path, metavar="A")
    diff.add_argument("after", type=Path, metavar="B")
    schema = commands.add_parser("schema", help="print the JSON schema of the policy file")
    schema.set_defaults(run=_schema)
    explain = _add(commands, "explain", _explain, "say in words what a policy means for a built model")
    _add_file(explain)
    explain.add_argument("--model", required=True, metavar="MODEL", help="a model of the repository")
    _add_repository(explain, Path("repository"), "folder of built models (default: %(default)s)")
    explain.add_argument("--budget-ms", type=float, nargs="+", default=[], metavar="MS", help="budgets to answer for")
    show = _add(commands, "show", _show, "print the policy that a running gateway goes by")
    _add_url(show)
    apply = _add(commands, "apply", _apply, "replace the policy of a running gateway")
    _add_file(apply)
    _add_url(apply)
    apply.add_argument("--if-match", metavar="DIGEST", help="replace only the policy that has this digest")


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, run: object, help_text: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help_text, description=f"{help_text[0].upper()}{help_text[1:]}.")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=lambda parsed: _run(run, parsed))
    return parser


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="a policy file, YAML or JSON")


def _add_repository(parser: argparse.ArgumentParser, default: Path | None, help_text: str) -> None:
    parser.add_argument("--repository", type=Path, default=default, metavar="FOLDER", help=help_text)


def _add_url(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", default=_DEFAULT_URL, help="the gateway's admin listener (default: %(default)s)")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="file with the admin token")


def _run(run: Any, parsed: argparse.Namespace) -> int:  # noqa: ANN401 - one of the functions below
    from service.domain.errors import TiergateError
    from service.engine.policy_reader import PolicyError
    from service.policy_client import GatewayRefused

    try:
        status: int = run(parsed)
    except PolicyError as error:
        about = str(error).partition(f": {error.problems[0]}")[0]
        print(f"tiergate policy: {about}", *(f"  {problem}" for problem in error.problems), sep="\n", file=sys.stderr)
        return _REFUSED
    except (GatewayRefused, TiergateError) as error:
        print(f"tiergate policy: {error}", file=sys.stderr)
        return _REFUSED
    return status


def _validate(parsed: argparse.Namespace) -> int:
    from service.engine.policy_reader import PolicyError, read_policy

    text = read_policy(parsed.file)
    strangers = _strangers(text, parsed.repository) if parsed.repository is not None else []
    if strangers:
        raise PolicyError(f"policy file {parsed.file} does not fit repository {parsed.repository}", strangers)
    models = sorted(text.policy.models)
    if parsed.json:
        print(json.dumps({"valid": True, "digest": text.digest, "models": models}))
    else:
        print(f"{parsed.file} is valid; digest {text.digest}; models: {', '.join(models) or 'none, only the default'}")
    return 0


def _strangers(text: PolicyText, repository: Path) -> list[str]:
    """Return what the policy names and the repository lacks."""
    from service.engine.repository import Repository, describe

    found = {item.name: item.manifest for item in Repository(repository).scan() if item.manifest is not None}
    problems = []
    for name, policy in text.policy.models.items():
        manifest = found.get(name)
        if manifest is None:
            problems.append(f"models.{name}: the repository has {', '.join(sorted(found)) or 'no models'}")
            continue
        variants = [item.name for item in describe(manifest).variants]
        unknown = [item for item in policy.variants if item not in variants]
        problems += [f"models.{name}.variants names {item}; built are {', '.join(variants)}" for item in unknown]
    return problems


def _diff(parsed: argparse.Namespace) -> int:
    from service.domain.policy_changes import policy_changes
    from service.engine.policy_reader import read_policy

    changes = policy_changes(read_policy(parsed.before).policy, read_policy(parsed.after).policy)
    if parsed.json:
        rows = [
            {
                "field": change.field,
                "before": change.before.value,
                "after": change.after.value,
                "before_is_default": change.before.is_default,
                "after_is_default": change.after.is_default,
            }
            for change in changes
        ]
        print(json.dumps({"changes": rows}, indent=2))
    else:
        print("\n".join(map(str, changes)) or "the two say the same")
    return 0


def _schema(_: argparse.Namespace) -> int:
    from service.domain.policy_file import policy_schema

    print(json.dumps(policy_schema(), indent=2))
    return 0


def _explain(parsed: argparse.Namespace) -> int:
    from service.engine.policy_reader import read_policy
    from service.policy_words import explain_policy

    text = read_policy(parsed.file)
    explained = explain_policy(text.policy, _model(parsed.repository, parsed.model), parsed.budget_ms)
    print(json.dumps(explained.as_json(), indent=2) if parsed.json else explained.as_text())
    return 0


def _model(repository: Path, name: str) -> ModelInfo:
    from service.domain.errors import ModelNotFound
    from service.engine.repository import Repository, describe

    stored = Repository(repository).find(name)
    if stored.manifest is None:
        raise ModelNotFound(f"model '{name}' of repository {repository} cannot be read: {stored.problem}")
    return describe(stored.manifest)


def _show(parsed: argparse.Namespace) -> int:
    from service.policy_client import fetch_policy

    content, digest = fetch_policy(_site(parsed), as_json=parsed.json)
    if not parsed.json:
        print(f"# digest {digest}")
    print(content.decode().rstrip())
    return 0


def _apply(parsed: argparse.Namespace) -> int:
    from service.engine.policy_reader import read_policy
    from service.policy_client import push_policy

    done = push_policy(_site(parsed), read_policy(parsed.file).content, parsed.if_match)
    if parsed.json:
        print(json.dumps(done, indent=2))
        return 0
    changes: Sequence[str] = done["changes"]
    print("\n".join(changes) or "nothing changed: the gateway said the same already")
    kept = "its policy file" if done["kept_in"] == "file" else "memory only, until it ends"
    print(f"the gateway goes by it now; digest {done['digest']}; kept in {kept}")
    return 0


def _site(parsed: argparse.Namespace) -> Site:
    from service.policy_client import Site

    return Site.of(parsed.url, parsed.token_file)
