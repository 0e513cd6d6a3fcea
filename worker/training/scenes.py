"""Scenes that the project draws itself: shapes on a background, a canonical caption, the boxes.

A scene is a value: everything that is drawn, said or asked about it follows from its fields.
Drawing works at any resolution, for boxes are in unit coordinates. Nothing here needs torch.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import cos, pi, sin

from PIL import Image, ImageDraw

KINDS = ("circle", "square", "triangle", "star", "cross", "ring")
SIZES = ("small", "large")
RELATIONS = ("left of", "above")
COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 150, 50),
    "blue": (40, 70, 225),
    "yellow": (250, 225, 20),
    "purple": (125, 40, 160),
    "orange": (250, 140, 20),
    "cyan": (40, 210, 225),
    "pink": (250, 130, 190),
}
BACKGROUNDS = {
    "white": (248, 248, 248),
    "gray": (128, 128, 128),
    "black": (10, 10, 10),
    "beige": (222, 202, 165),
}
ATTRIBUTES = ("kind", "colour", "size", "background", "relation", "order")
RADII = {"small": (0.095, 0.125), "large": (0.18, 0.22)}
MARGIN = 0.02
CHANNEL_JITTER = 12

Box = tuple[float, float, float, float]
Colour = tuple[int, int, int]
Combination = tuple[str, str, str]

COMBINATIONS: tuple[Combination, ...] = tuple(product(SIZES, COLOURS, KINDS))
# A tenth of the combinations, spread so that every kind, colour and size stays in the training
# set together with every other: composing what was seen apart is what the split measures.
HELD_OUT: tuple[Combination, ...] = tuple(
    (SIZES[i // 5], list(COLOURS)[(3 * i) % 8], KINDS[(i + i // 6) % 6]) for i in range(10)
)
SEEN: tuple[Combination, ...] = tuple(c for c in COMBINATIONS if c not in HELD_OUT)


@dataclass(frozen=True)
class Shape:
    """One shape. `box` is left, top, right, bottom in units of the image's side; `rgb` is drawn."""

    kind: str
    colour: str
    size: str
    box: Box
    rgb: Colour

    @property
    def combination(self) -> Combination:
        """Size, colour and kind, in the order in which a caption names them."""
        return (self.size, self.colour, self.kind)

    @property
    def phrase(self) -> str:
        """What a caption says of it: "a small red circle"."""
        return f"a {self.size} {self.colour} {self.kind}"


@dataclass(frozen=True)
class Scene:
    """One or two shapes; the first is the left or the upper one. `relation` is None for one."""

    shapes: tuple[Shape, ...]
    background: str
    background_rgb: Colour
    relation: str | None

    @property
    def caption(self) -> str:
        """The only right caption: which shape comes first is decided by where it is."""
        return f" {self.relation} ".join(s.phrase for s in self.shapes) + f" on {self.background}"


def sample(
    rng: random.Random,
    shapes: int = 2,
    among: Sequence[Combination] = SEEN,
    must: Sequence[Combination] | None = None,
) -> Scene:
    """A random scene of `shapes` (1 or 2) shapes, combinations drawn from `among`.

    With `must`, one shape at a random place in the caption is drawn from it instead.
    """
    combinations = [rng.choice(among) for _ in range(shapes)]
    if must is not None:
        combinations[rng.randrange(shapes)] = rng.choice(must)
    radii = [rng.uniform(*RADII[size]) for size, _, _ in combinations]
    relation = rng.choice(RELATIONS) if shapes == 2 else None
    centres = _centres(rng, radii, relation)
    background = rng.choice(tuple(BACKGROUNDS))
    return Scene(
        shapes=tuple(
            Shape(kind, colour, size, (x - r, y - r, x + r, y + r), _jitter(rng, COLOURS[colour]))
            for (size, colour, kind), r, (x, y) in zip(combinations, radii, centres, strict=True)
        ),
        background=background,
        background_rgb=_jitter(rng, BACKGROUNDS[background], 6),
        relation=relation,
    )


def _centres(
    rng: random.Random, radii: list[float], relation: str | None
) -> list[tuple[float, float]]:
    """Centres whose distance along the relation's axis clears both shapes and is twice the other.

    The boxes neither overlap nor leave the image.
    """
    low = [MARGIN + r for r in radii]
    high = [1 - edge for edge in low]
    if relation is None:
        return [(rng.uniform(low[0], high[0]), rng.uniform(low[0], high[0]))]
    gap = max(sum(radii) + 0.04, 0.28)
    first = rng.uniform(low[0], high[1] - gap)
    second = rng.uniform(first + gap, high[1])
    reach = (second - first) / 2
    across = rng.uniform(low[0], high[0])
    beside = rng.uniform(max(low[1], across - reach), min(high[1], across + reach))
    centres = [(first, across), (second, beside)]
    return centres if relation == "left of" else [(y, x) for x, y in centres]


def _jitter(rng: random.Random, rgb: Colour, by: int = CHANNEL_JITTER) -> Colour:
    r, g, b = (min(255, max(0, v + rng.randint(-by, by))) for v in rgb)
    return r, g, b


def change(scene: Scene, attribute: str, rng: random.Random) -> Scene | None:
    """`scene` with one attribute of its caption changed, so that the caption is false.

    None where the scene has no such attribute. Made for its caption: the changed scene's boxes
    are not moved, so it is not meant to be drawn.
    """
    if attribute == "background":
        return replace(scene, background=_other(rng, BACKGROUNDS, scene.background))
    if attribute in ("relation", "order"):
        if scene.relation is None:
            return None
        if attribute == "relation":
            return replace(scene, relation=_other(rng, RELATIONS, scene.relation))
        swapped = replace(scene, shapes=scene.shapes[::-1])
        return swapped if swapped.caption != scene.caption else None
    which = rng.randrange(len(scene.shapes))
    shape = scene.shapes[which]
    if attribute == "kind":
        changed = replace(shape, kind=_other(rng, KINDS, shape.kind))
    elif attribute == "colour":
        changed = replace(shape, colour=_other(rng, COLOURS, shape.colour))
    else:
        changed = replace(shape, size=_other(rng, SIZES, shape.size))
    return replace(scene, shapes=(*scene.shapes[:which], changed, *scene.shapes[which + 1 :]))


def _other(rng: random.Random, values: Iterable[str], current: str) -> str:
    return rng.choice([value for value in values if value != current])


def recolour(scene: Scene, rng: random.Random) -> Scene:
    """`scene` with each shape drawn in any colour that stands out; its caption is then false.

    Stays away from colours that would show a held-out combination.
    """
    shapes = []
    for shape in scene.shapes:
        hidden = [
            COLOURS[colour]
            for size, colour, kind in HELD_OUT
            if (size, kind) == (shape.size, shape.kind)
        ]
        while True:
            rgb = (rng.randrange(256), rng.randrange(256), rng.randrange(256))
            if _apart(rgb, scene.background_rgb) > 120 and all(
                _apart(rgb, h) > 150 for h in hidden
            ):
                break
        shapes.append(replace(shape, rgb=rgb))
    return replace(scene, shapes=tuple(shapes))


def _apart(one: Colour, two: Colour) -> int:
    return sum(abs(a - b) for a, b in zip(one, two, strict=True))


def draw(scene: Scene, side: int = 96, canvas: tuple[float, float] = (1.0, 1.0)) -> Image.Image:
    """The scene as an RGB image, anti-aliased; `canvas` is (width, height) in sides."""
    size = round(side * canvas[0]), round(side * canvas[1])
    image = Image.new("RGB", size, scene.background_rgb)
    for shape in scene.shapes:
        left, top = int(shape.box[0] * side), int(shape.box[1] * side)
        right, bottom = int(shape.box[2] * side) + 1, int(shape.box[3] * side) + 1
        scale = 4
        cover = Image.new("L", ((right - left) * scale, (bottom - top) * scale))
        x0, y0, x1, y1 = (
            (v * side - o) * scale for v, o in zip(shape.box, (left, top) * 2, strict=True)
        )
        _fill(ImageDraw.Draw(cover), shape.kind, (x0, y0, x1, y1))
        image.paste(shape.rgb, (left, top), cover.reduce(scale))
    return image


def mask(scene: Scene, side: int = 96) -> Image.Image:
    """Where the scene's shapes are: a gray image of `side` x `side` pixels, 255 on a shape."""
    lit = tuple(replace(shape, rgb=(255, 255, 255)) for shape in scene.shapes)
    return draw(replace(scene, shapes=lit, background_rgb=(0, 0, 0)), side).convert("L")


def _fill(pen: ImageDraw.ImageDraw, kind: str, box: Box) -> None:
    """Fills `kind` with 255 inside `box` (pixels), touching all four of its sides."""
    x0, y0, x1, y1 = box
    if kind == "circle":
        pen.ellipse(box, fill=255)
    elif kind == "ring":
        pen.ellipse(box, fill=255)
        rim = (x1 - x0) * 0.22
        pen.ellipse((x0 + rim, y0 + rim, x1 - rim, y1 - rim), fill=0)
    elif kind == "square":
        pen.rectangle(box, fill=255)
    else:
        pen.polygon([(x0 + u * (x1 - x0), y0 + v * (y1 - y0)) for u, v in OUTLINES[kind]], fill=255)


def _star() -> list[tuple[float, float]]:
    """Five points, stretched to touch all sides of the unit box."""
    points = [
        (sin(pi * i / 5) * r, -cos(pi * i / 5) * r)
        for i, r in ((i, 1.0 if i % 2 == 0 else 0.42) for i in range(10))
    ]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    width, height = max(xs) - min(xs), max(ys) - min(ys)
    return [((x - min(xs)) / width, (y - min(ys)) / height) for x, y in points]


_ARM, _END = 0.34, 0.66
OUTLINES: dict[str, list[tuple[float, float]]] = {
    "triangle": [(0.5, 0), (1, 1), (0, 1)],
    "star": _star(),
    "cross": [
        (_ARM, 0), (_END, 0), (_END, _ARM), (1, _ARM), (1, _END), (_END, _END),
        (_END, 1), (_ARM, 1), (_ARM, _END), (0, _END), (0, _ARM), (_ARM, _ARM),
    ],
}  # fmt: skip
