"""Digits with a download tier: the bundled recipe, and full once more, nine of ten weights zero and packed."""

from __future__ import annotations

from dataclasses import replace

from variants.recipe import Download, Training
from variants.recipes.digits import Digits


class DigitsDownload(Digits):
    """What ``tiergate build`` is given for the download bar."""

    name = "digits-download"
    plan = replace(Digits.plan, download=Download(0.9, 32, training=Training(steps=120, learning_rate=0.01)))


RECIPE = DigitsDownload()
