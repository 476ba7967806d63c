"""Pictures of printed characters, painted on the fly: as many labelled images as wanted, without a download.

Each picture is one character of ``ALPHABET`` in one of twelve faces of the DejaVu fonts (which matplotlib ships),
scaled, stretched, turned and sheared, dark on a lighter background with strokes and the edge of a neighbouring
character, at random contrast, then blurred, lit from a side and covered with noise. Random geometry
and hundreds of alike classes (accents, ligatures, arrows) make a model's size matter; noise and blur alone would make
the task equally hard for all.

A picture depends on the seed, its row number and its class, and on nothing else: row 17 of a seed is the same picture
whether 20 or 20,000 are painted. The bytes also depend on the font files and on Pillow's FreeType, which is why a build
hashes the data it got.

Characters that look alike once size and place are random (o O 0, s S, l I |) are in ``ALPHABET`` at most once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from variants.recipe import Classes

    Pictures = NDArray[np.uint8]

SIDE: Final = 64
ALPHABET: Final = (
    "123456789"
    "ABCDEFGHJKLMNPQRSTUVWXYZabdefghkmnqrty"
    '!"#$%&()*+/;<=>?@'
    "¢£¤¥§©«¬®±¶¼½¾×€"  # noqa: RUF001 - the sign is meant
    "ÀÆÈÑÒØÙÝÞßàåæèìíîðñòöúþāĄąĆĈĎĒĘĜĢĤĥĳĴĶķĹĻľĿŅŒŔŖŚŞŢŤťůŲŴŹ"
    "ΓΔΞΣΦΨΩαβεζηλμξςτω"
    "БДЖЙЛЦЧШЩЪЫЭЮЯфьЂЉЊЎђѓџҐҖҘҚ"
    "←↑→↓↖↗↘↙∂∃∇∈∋∏√∝∞∠∩∫∬≈≐≠≡≤≥"
    "◇◉◊◐◑◒◓◔◕◢◣◤◥"
)
"""The classes; the position of a character is its label."""

FACES: Final = tuple(
    f"DejaVu{family}{style}.ttf"
    for family, styles in (
        ("Sans", ("", "-Bold", "-Oblique", "-BoldOblique")),
        ("SansMono", ("", "-Bold", "-Oblique", "-BoldOblique")),
        ("Serif", ("", "-Bold", "-Italic", "-BoldItalic")),
    )
    for style in styles
)
MASTER_SIZE: Final = 64
"""Size in pixels at which characters are drawn before they are scaled to the picture."""


@dataclass(frozen=True, slots=True)
class Difficulty:
    """How wild pictures are. Lengths are pixels of the 64x64 picture, angles radians, grey values 0..255."""

    extent: tuple[float, float] = (32.0, 50.0)
    turn: float = math.radians(10.0)
    shear: float = 0.18
    stretch: float = 0.18
    shift: float = 4.0
    contrast: tuple[float, float] = (60.0, 180.0)
    gradient: float = 25.0
    strokes: int = 2
    neighbours: int = 1
    blur: tuple[float, float] = (0.2, 1.1)
    noise: tuple[float, float] = (3.0, 18.0)


def paint(rows: int, seed: int, difficulty: Difficulty | None = None) -> tuple[Pictures, Classes]:
    """Return ``rows`` pictures (rows, 64, 64) uint8 and their labels (rows,), all classes equally often (within one).

    Row r has class r modulo the number of classes, so any run of consecutive rows is balanced.
    """
    wanted = difficulty or Difficulty()
    labels = np.arange(rows, dtype=np.int64) % len(ALPHABET)
    pictures = np.empty((rows, SIDE, SIDE), dtype=np.uint8)
    for row, label in enumerate(labels):
        pictures[row] = _paint_one(int(label), np.random.default_rng((seed, row)), wanted)
    return pictures, labels


@cache
def master(label: int, face: int) -> Image.Image:
    """Return character ``label`` in face number ``face`` as a tight mask, 0 outside and 255 inside the strokes."""
    mask = _font(face).getmask(ALPHABET[label])
    return Image.frombytes("L", mask.size, bytes(mask))


@cache
def _font(face: int) -> ImageFont.FreeTypeFont:
    path = Path(mpl.get_data_path()) / "fonts" / "ttf" / FACES[face]
    return ImageFont.truetype(str(path), MASTER_SIZE, layout_engine=ImageFont.Layout.BASIC)


def _paint_one(label: int, random: np.random.Generator, wanted: Difficulty) -> Pictures:
    paper, ink = _greys(random, wanted)
    canvas = Image.new("L", (SIDE, SIDE), paper)
    _draw_strokes(canvas, random, wanted)
    middle = SIDE / 2 + random.uniform(-wanted.shift, wanted.shift, 2)  # (x, y)
    face = int(random.integers(len(FACES)))
    canvas.paste(ink, (0, 0), _place(master(label, face), middle, random, wanted))
    for _ in range(int(random.integers(wanted.neighbours + 1))):
        other = master(int(random.integers(len(ALPHABET))), int(random.integers(len(FACES))))
        canvas.paste(ink, (0, 0), _place(other, _outskirts(random), random, wanted))
    blurred = canvas.filter(ImageFilter.GaussianBlur(random.uniform(*wanted.blur)))
    return _weather(np.asarray(blurred, dtype=np.float32), random, wanted)


def _greys(random: np.random.Generator, wanted: Difficulty) -> tuple[int, int]:
    """Return grey values of paper and ink, the ink darker."""
    contrast = random.uniform(*wanted.contrast)
    ink = random.uniform(0.0, 255.0 - contrast)
    return int(ink + contrast), int(ink)


def _outskirts(random: np.random.Generator) -> NDArray[np.float64]:
    """Return a place near an edge, where only a part of a character shows."""
    angle, distance = random.uniform(0, 2 * math.pi), random.uniform(38.0, 48.0)
    return SIDE / 2 + distance * np.array([math.cos(angle), math.sin(angle)])


def _place(
    mask: Image.Image, middle: NDArray[np.float64], random: np.random.Generator, wanted: Difficulty
) -> Image.Image:
    """Return ``mask`` scaled, stretched, sheared and turned, its centre at ``middle``, as a mask of the picture."""
    width, height = mask.size
    scale = random.uniform(*wanted.extent) / max(width, height)
    stretch = math.exp(random.uniform(-wanted.stretch, wanted.stretch))
    turn, shear = random.uniform(-wanted.turn, wanted.turn), random.uniform(-wanted.shear, wanted.shear)
    turned = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    forward = turned @ np.array([[1.0, shear], [0.0, 1.0]]) @ np.diag([scale * stretch, scale / stretch])
    back = np.linalg.inv(forward)  # Pillow asks where each pixel of the picture comes from
    offset = np.array([width, height]) / 2 - back @ middle
    matrix = (*back[0], offset[0], *back[1], offset[1])
    return mask.transform((SIDE, SIDE), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def _draw_strokes(canvas: Image.Image, random: np.random.Generator, wanted: Difficulty) -> None:
    pen = ImageDraw.Draw(canvas)
    for _ in range(int(random.integers(wanted.strokes + 1))):
        ends = [float(end) for end in random.uniform(-8, SIDE + 8, 4)]
        pen.line(ends, fill=int(random.integers(256)), width=int(random.integers(1, 3)))


def _weather(picture: NDArray[np.float32], random: np.random.Generator, wanted: Difficulty) -> Pictures:
    """Return ``picture`` (64, 64) under a slanting light and noise."""
    ramp = np.linspace(-0.5, 0.5, SIDE, dtype=np.float32)
    slope_x, slope_y = random.uniform(-wanted.gradient, wanted.gradient, 2)
    light = slope_x * ramp[None, :] + slope_y * ramp[:, None]  # (64, 64)
    noise = random.standard_normal((SIDE, SIDE), dtype=np.float32) * random.uniform(*wanted.noise)
    weathered: Pictures = np.clip(picture + light + noise, 0, 255).round().astype(np.uint8)
    return weathered
