"""The raw application mounted in a BentoML service, the documented way."""

from __future__ import annotations

import bentoml

from loadtests.peers.raw import app


@bentoml.service(name="raw", workers=1, logging={"access": {"enabled": False}}, metrics={"enabled": False})
@bentoml.asgi_app(app)
class Mounted:
    """Answers as ``loadtests.peers.raw`` does."""
