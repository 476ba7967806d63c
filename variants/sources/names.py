"""Names in many languages, from Unicode's CLDR: languages, countries, scripts, currencies, months, units, places.

Babel carries the collection (Unicode License v3), so nothing is downloaded. What a language does not say itself is
inherited from another there, and neighbours share many words: a name is kept only where one of the languages asked for
has it, so that what is left has one right answer. Names are compared without regard to case.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from babel import Locale

from variants.sources.tokens import fold

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

KINDS: Final = (
    "languages", "territories", "scripts", "variants", "currencies", "months", "days", "eras", "quarters",
    "day_periods", "time_zones", "meta_zones",
)  # fmt: skip
FORMS: Final = ("unit_display_names", "unit_patterns", "currency_names_plural")
"""Kinds that Babel's ``Locale`` has no property for."""
PLACE: Final = re.compile(r"\{\d\}")
FEWEST_LETTERS: Final = 4
"""Shorter ones are abbreviations, which say little of a language."""


def read_names(languages: Sequence[str]) -> dict[str, list[str]]:
    """Return the names that one of ``languages`` (codes such as ``de``) alone has, sorted, by language."""
    owners: dict[str, str | None] = {}
    for language in languages:
        for name in _names(language):
            owners[name] = language if owners.get(name, language) == language else None
    kept: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(owners):
        owner = owners[name]
        if owner is not None:
            kept[owner].append(name)
    return {language: kept[language] for language in languages}


def read_kinds(language: str, kinds: Sequence[str]) -> dict[str, list[str]]:
    """Return the names of each kind in one language that no other of ``kinds`` has, sorted."""
    locale = Locale.parse(language)
    found = {kind: {name for text in _texts(_entries(locale, kind)) if (name := _clean(text))} for kind in kinds}
    return {
        kind: sorted(names - set().union(*(found[other] for other in kinds if other != kind)))
        for kind, names in found.items()
    }


def _names(language: str) -> set[str]:
    locale = Locale.parse(language)
    return {
        name for kind in (*KINDS, *FORMS) for text in _texts(_entries(locale, kind)) if (name := _clean(text)) != ""
    }


def _entries(locale: Locale, kind: str) -> Mapping[str, Any]:
    entries: Mapping[str, Any] = (
        locale._data.get(kind, {}) if kind in FORMS else getattr(locale, kind)  # noqa: SLF001 - see FORMS
    )
    return entries


def _texts(entries: Mapping[str, Any]) -> Iterator[str]:
    """Yield every text in nested tables."""
    for entry in entries.values():
        if isinstance(entry, str):
            yield entry
        elif hasattr(entry, "values"):
            yield from _texts(entry)


def _clean(text: str) -> str:
    """Return a name without places for numbers, folded; nothing where too few letters are left."""
    name = fold(PLACE.sub("", text))
    return name if sum(letter.isalpha() for letter in name) >= FEWEST_LETTERS else ""
