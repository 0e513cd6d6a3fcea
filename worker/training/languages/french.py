"""French: gender, the size before the noun and the colour after it, elision after "de".

Colour words that are names of things or of other languages (orange, cyan) are invariable; "rose",
though named after a flower, agrees, and shows it in the plural alone (Grevisse, Le Bon Usage, 555).
"""

from worker.training.scenes import Scene, Shape

KINDS = {
    "circle": ("cercle", "m"),
    "square": ("carré", "m"),
    "triangle": ("triangle", "m"),
    "star": ("étoile", "f"),
    "cross": ("croix", "f"),
    "ring": ("anneau", "m"),
}
"""The noun, and its gender."""
SIZES = {
    "small": {"m": "petit", "f": "petite"},
    "large": {"m": "grand", "f": "grande"},
}
COLOURS = {
    "red": {"m": "rouge", "f": "rouge"},
    "green": {"m": "vert", "f": "verte"},
    "blue": {"m": "bleu", "f": "bleue"},
    "yellow": {"m": "jaune", "f": "jaune"},
    "purple": {"m": "violet", "f": "violette"},
    "orange": {"m": "orange", "f": "orange"},
    "cyan": {"m": "cyan", "f": "cyan"},
    "pink": {"m": "rose", "f": "rose"},
}
BACKGROUNDS = {"white": "blanc", "gray": "gris", "black": "noir", "beige": "beige"}
"""As "fond", which is masculine, has them."""
ARTICLES = {"m": "un", "f": "une"}
RELATIONS = {"left of": "à gauche d'", "above": "au-dessus d'"}
"""With "de" elided: what follows is "un" or "une"."""


def caption(scene: Scene) -> str:
    """ "un petit cercle rouge à gauche d'un grand carré bleu sur fond blanc"."""
    relation = f" {RELATIONS[scene.relation]}" if scene.relation else ""
    said = relation.join(phrase(shape) for shape in scene.shapes)
    return f"{said} sur fond {BACKGROUNDS[scene.background]}"


def phrase(shape: Shape) -> str:
    """A shape: "une petite étoile verte"."""
    noun, gender = KINDS[shape.kind]
    size, colour = SIZES[shape.size][gender], COLOURS[shape.colour][gender]
    return f"{ARTICLES[gender]} {size} {noun} {colour}"
