"""Helm in a process of its own, told what to do by lines of JSON: its library brings Go's threads and signal handlers.

Run as ``python helm_worker.py LIBRARY``; each line on stdin is ``{"action": ..., ...}``, each line on stdout its
``{"result": ...}`` or ``{"error": ...}``. What Helm itself prints goes to stderr.

The library is that of the wheel ``helm-sdkpy``. The wheel's own Python side wants a newer Python than ours; its C
functions do not, so they are called directly.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from typing import Any

_TEXT = ctypes.c_char_p
_Out = ctypes.POINTER(ctypes.c_void_p)
_OPTIONS = {
    "wait": False,
    "timeout_seconds": 600,
    "server_side_apply": "true",
    "disable_openapi_validation": True,
    "reset_values": True,  # an upgrade says all it wants, as `helm upgrade --reset-values`
}


class HelmFailed(RuntimeError):
    """Helm refused; the message is Helm's own."""


class Library:
    """The few functions of the C library that the tests need, for one cluster and namespace."""

    def __init__(self, path: str, kubeconfig: str, namespace: str) -> None:
        self._library = ctypes.CDLL(path)
        self._library.helm_sdkpy_last_error.restype = _TEXT
        self._library.helm_sdkpy_free.argtypes = [ctypes.c_void_p]
        self._handle = ctypes.c_ulonglong()
        options = json.dumps({}).encode()
        status = self._library.helm_sdkpy_config_create(
            namespace.encode(), kubeconfig.encode(), None, options, ctypes.byref(self._handle)
        )
        self._check(status)

    def release(self, action: str, name: str, chart: str, values: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
        """Install or upgrade a release; return what it says of itself, the rendered files among it."""
        texts = (name, chart, json.dumps(values), "", json.dumps(_OPTIONS))
        release = self._call(f"helm_sdkpy_{action}", *(text.encode() for text in texts))
        return {key: release[key] for key in ("version", "manifest", "info")}

    def lint(self, chart: str) -> Any:  # noqa: ANN401 - JSON
        """Lint a chart folder with its own values."""
        return self._call("helm_sdkpy_lint", chart.encode())

    def uninstall(self, name: str) -> Any:  # noqa: ANN401 - JSON
        """Take a release away."""
        return self._call("helm_sdkpy_uninstall", name.encode(), ctypes.c_int(0), ctypes.c_int(600))

    def _call(self, function: str, *arguments: Any) -> Any:  # noqa: ANN401 - ctypes' own
        out = ctypes.c_void_p()
        self._check(getattr(self._library, function)(self._handle, *arguments, ctypes.byref(out)))
        try:
            return json.loads(ctypes.string_at(out.value or 0))
        finally:
            self._library.helm_sdkpy_free(out)

    def _check(self, status: int) -> None:
        if status != 0:
            raise HelmFailed((self._library.helm_sdkpy_last_error() or b"").decode("utf-8", "replace"))


def main() -> None:
    """Answer until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    libraries: dict[str, Library] = {}
    for line in sys.stdin:
        order = json.loads(line)
        kubeconfig, action = order.pop("kubeconfig"), order.pop("action")
        try:
            if kubeconfig not in libraries:
                libraries[kubeconfig] = Library(sys.argv[1], kubeconfig, "models")
            library = libraries[kubeconfig]
            if action in ("install", "upgrade"):
                answer = {"result": library.release(action, **order)}
            else:
                answer = {"result": getattr(library, action)(**order)}
        except HelmFailed as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
