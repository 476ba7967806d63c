from __future__ import annotations

import inspect
import re

from service.domain import errors
from service.domain.errors import Overloaded, TiergateError

TREE_LINE = re.compile(r"^ {4}(?P<indent>(?:\||`|-| )*)(?P<name>[A-Z]\w+)", re.MULTILINE)


def drawn_tree() -> dict[str, str]:
    """Return each error drawn in the module's docstring with the one that it hangs from."""
    parents: dict[str, str] = {}
    above: list[str] = []
    for line in TREE_LINE.finditer(inspect.getdoc(errors) or ""):
        depth = len(line["indent"]) // 4
        above[depth:] = [line["name"]]
        parents[line["name"]] = above[depth - 1] if depth else "Exception"
    return parents


def test_errors_are_drawn_as_they_are_derived() -> None:
    classes = [item for _, item in inspect.getmembers(errors, inspect.isclass) if issubclass(item, TiergateError)]
    assert drawn_tree() == {item.__name__: item.__bases__[0].__name__ for item in classes}


def test_errors_carry_no_status_code() -> None:
    assert not re.search(r"\b[1-5]\d\d\b", inspect.getsource(errors))


def test_overloaded_says_when_to_try_again() -> None:
    error = Overloaded("later", retry_after_s=0.25)
    assert (str(error), error.retry_after_s) == ("later", 0.25)
