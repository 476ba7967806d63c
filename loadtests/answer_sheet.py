"""The answer sheet: what every variant answers on every labelled row, so that a simulator can replay real inputs.

Asked over the wire, one row at a time, with the variant pinned. The margin is the distance between the two largest
elements of the first output: what a cascade would look at to decide whether a larger variant should be asked too.
"""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from loadtests import gateway
from loadtests.clients.answers import Unreadable, answer_of, first_output
from loadtests.clients.bodies import JSON_LENGTH, binary_bodies
from loadtests.h2load import LoadError
from loadtests.trial import find_inputs

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from loadtests.plan import Target
    from loadtests.trial import Site

_OK: Final = 200
_WAIT_S: Final = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class AnswerSheet:
    """Variants by rows: ``rows_correct`` (V, R) bool and ``margins`` (V, R) float32."""

    variants: tuple[str, ...]
    rows_correct: NDArray[np.bool_]
    margins: NDArray[np.float32]


def ask_all(site: Site, model: str, inputs: Path | None = None) -> AnswerSheet:
    """Ask every ready variant of a model for every labelled row.

    Raises:
        LoadError: There are no labels, or a variant did not answer.
    """
    target = gateway.find_target(site.address, model, "http-binary")
    rows = find_inputs(target, site.repository, inputs, seed=0)
    if rows.labels is None:
        raise LoadError("an answer sheet needs labels: give --inputs FILE.npz, or --repository")
    described = gateway.get_json(site.address.http, f"/v2/models/{model}/variants")["variants"]
    names = tuple(str(item["name"]) for item in described if item["state"] == "ready")
    correct = np.zeros((len(names), len(rows.rows)), np.bool_)
    margins = np.zeros((len(names), len(rows.rows)), np.float32)
    bodies, json_length = binary_bodies(target, rows.rows)
    for place, name in enumerate(names):
        outputs = _ask(target, name, bodies, json_length)
        correct[place] = [answer_of(output) == label for output, label in zip(outputs, rows.labels, strict=True)]
        margins[place] = [margin(output) for output in outputs]
    return AnswerSheet(names, correct, margins)


def save_sheet(sheet: AnswerSheet, path: Path) -> None:
    """Write a sheet as ``.npz`` with the arrays ``variants``, ``rows_correct`` and ``margins``."""
    with path.open("wb") as file:
        np.savez_compressed(
            file, variants=np.array(sheet.variants), rows_correct=sheet.rows_correct, margins=sheet.margins
        )


def margin(output: NDArray[np.float64]) -> float:
    """Return the distance between the two largest elements; 0 where there is one element only."""
    if output.size < 2:  # noqa: PLR2004 - the two largest
        return 0.0
    second, first = np.partition(output, -2)[-2:].tolist()
    return float(first - second)


def _ask(target: Target, variant: str, bodies: list[bytes], json_length: int) -> list[NDArray[np.float64]]:
    connection = http.client.HTTPConnection(target.address.http, timeout=_WAIT_S)
    headers = {"content-type": "application/octet-stream", JSON_LENGTH: str(json_length)}
    outputs = []
    try:
        for row, body in enumerate(bodies):
            connection.request("POST", f"/v2/models/{target.model}--{variant}/infer", body, headers)
            response = connection.getresponse()
            content = response.read()
            if response.status != _OK:
                raise LoadError(f"variant '{variant}' answered {response.status} for row {row}: {content.decode()}")
            outputs.append(first_output(content, int(response.headers[JSON_LENGTH])))
    except (OSError, http.client.HTTPException, Unreadable, TypeError) as error:
        raise LoadError(f"variant '{variant}' cannot be asked: {error}") from None
    finally:
        connection.close()
    return outputs
