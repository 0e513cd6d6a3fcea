"""Arabic, unvocalised: adjectives follow their noun and agree with it, colours on a pattern.

The colours of the pattern أفعل have the feminine فعلاء (أحمر, حمراء; Ryding 2005, A Reference
Grammar of Modern Standard Arabic, 10.5); those made of nouns (بنفسجي) take ة. بيج is a loan and
does not change. Text is in logical order; showing it from right to left is its reader's work.
"""

from worker.training.scenes import Scene, Shape

KINDS = {
    "circle": ("دائرة", "f"),
    "square": ("مربع", "m"),
    "triangle": ("مثلث", "m"),
    "star": ("نجمة", "f"),
    "cross": ("صليب", "m"),
    "ring": ("حلقة", "f"),
}
"""The noun, and its gender."""
SIZES = {
    "small": {"m": "صغير", "f": "صغيرة"},
    "large": {"m": "كبير", "f": "كبيرة"},
}
COLOURS = {
    "red": {"m": "أحمر", "f": "حمراء"},
    "green": {"m": "أخضر", "f": "خضراء"},
    "blue": {"m": "أزرق", "f": "زرقاء"},
    "yellow": {"m": "أصفر", "f": "صفراء"},
    "purple": {"m": "بنفسجي", "f": "بنفسجية"},
    "orange": {"m": "برتقالي", "f": "برتقالية"},
    "cyan": {"m": "سماوي", "f": "سماوية"},
    "pink": {"m": "وردي", "f": "وردية"},
}
BACKGROUNDS = {"white": "بيضاء", "gray": "رمادية", "black": "سوداء", "beige": "بيج"}
"""As خلفية, which is feminine, has them."""
RELATIONS = {"left of": "على يسار", "above": "فوق"}


def caption(scene: Scene) -> str:
    """ "دائرة حمراء صغيرة على يسار مربع أزرق كبير على خلفية بيضاء"."""
    relation = f" {RELATIONS[scene.relation]} " if scene.relation else ""
    said = relation.join(phrase(shape) for shape in scene.shapes)
    return f"{said} على خلفية {BACKGROUNDS[scene.background]}"


def phrase(shape: Shape) -> str:
    """A shape: "دائرة حمراء صغيرة"."""
    noun, gender = KINDS[shape.kind]
    return f"{noun} {COLOURS[shape.colour][gender]} {SIZES[shape.size][gender]}"
