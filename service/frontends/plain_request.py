"""What one read brought, known at a glance: a plain infer request as a whole.

Most clients send an infer request in one piece, and the same head again and again. Such a head is read once, more
strictly than a parser would, and kept by its bytes; so a parser, with a call back for each of its lines, is spared.
Whatever is odd in any way, comes in pieces or has something behind it is left to the parser.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_MODELS: Final = b"/v2/models/"
_INFER: Final = b"/infer"
_METHOD: Final = b"POST "
_POST: Final = _METHOD + _MODELS
_PART: Final = rb'/[!"$&-.0->@-~]+'  # printable, and none of # % / ?
_LINE: Final = rb"\r\n([0-9A-Za-z-]++):[\t ]*+([\t -~\x80-\xff]*+)"  # never tried in a second way
_PLAIN: Final = re.compile(rb"(POST /v2/models%b(?:%b)*/infer) HTTP/1\.1(?:%b)*+" % (_PART, _PART, _LINE))
_LINES: Final = re.compile(_LINE)
_END_OF_HEAD: Final = b"\r\n\r\n"
_MOST_HEAD_BYTES: Final = 4096
_MOST_LINES: Final = 64  # or what is kept of 256 heads would be dozens of megabytes
_MOST_DIGITS: Final = 10
_ODD_HEADERS: Final = frozenset(
    {b"transfer-encoding", b"content-encoding", b"expect", b"connection", b"proxy-connection", b"upgrade"}
)


@dataclass(frozen=True, slots=True, eq=False)
class PlainHead:
    """The head of a plain infer request, of ``size`` bytes, and of the body behind it the ``length``.

    ``model`` is what the path names, perhaps with a variant. Header names are lower-case. Requests with the same head
    share the object: nobody may change the headers.
    """

    path: str
    model: bytes
    headers: dict[bytes, bytes]
    size: int
    length: int


def whole_infer(data: bytes) -> PlainHead | None:
    """Return the head of what is one plain infer request as a whole, ``None`` for all else."""
    end = data.find(_END_OF_HEAD, 0, _MOST_HEAD_BYTES)
    head = _plain_head(data[:end]) if end > 0 and data.startswith(_POST) else None
    return head if head is not None and head.size + head.length == len(data) else None


@lru_cache(maxsize=256)
def _plain_head(head: bytes) -> PlainHead | None:
    count = head.count(b"\r\n")
    plain = _PLAIN.fullmatch(head) if count <= _MOST_LINES else None
    if plain is None:
        return None
    # A value keeps the spaces behind it, as with the parser.
    headers = {name.lower(): value for name, value in _LINES.findall(head)}
    length = headers.get(b"content-length", b"")
    if len(headers) != count or not headers.keys().isdisjoint(_ODD_HEADERS):
        return None
    if not length.isdigit() or len(length) > _MOST_DIGITS:
        return None
    path = plain[1][len(_METHOD) :]
    return PlainHead(path.decode("ascii"), model_of_path(path), headers, len(head) + len(_END_OF_HEAD), int(length))


def is_infer_path(path: bytes) -> bool:
    """Tell whether a path is an infer request's; what it names is not looked at."""
    return path.startswith(_MODELS) and path.endswith(_INFER) and len(path) > len(_MODELS) + len(_INFER)


def model_of_path(path: bytes) -> bytes:
    """Return the model that an infer request's path names."""
    return path[len(_MODELS) : path.find(b"/", len(_MODELS))]
