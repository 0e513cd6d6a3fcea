"""German: gender, strong adjectives in nominative and dative, colours that are never declined.

Adjectives after "ein" say the gender in the nominative (ein roter Kreis, ein rotes Quadrat) and end
in -en in the dative, which "von" and "über", said of a place, ask for. "rosa" has no endings (Duden
4, Die Grammatik); nor have "orange", "türkis" and "beige" in careful German, which compounds with
"-farben" get round.
"""

from worker.training.scenes import Scene, Shape

KINDS = {
    "circle": ("Kreis", "m"),
    "square": ("Quadrat", "n"),
    "triangle": ("Dreieck", "n"),
    "star": ("Stern", "m"),
    "cross": ("Kreuz", "n"),
    "ring": ("Ring", "m"),
}
"""The noun, and its gender."""
SIZES = {"small": "klein", "large": "groß"}
COLOURS = {
    "red": "rot",
    "green": "grün",
    "blue": "blau",
    "yellow": "gelb",
    "purple": "violett",
    "orange": "orangefarben",
    "cyan": "türkisfarben",
    "pink": "rosa",
}
BACKGROUNDS = {"white": "weiß", "gray": "grau", "black": "schwarz", "beige": "beigefarben"}
RELATIONS = {"left of": "links von", "above": "über"}
INVARIABLE = ("rosa",)
ARTICLES = {"nominative": {"m": "ein", "n": "ein"}, "dative": {"m": "einem", "n": "einem"}}
ENDINGS = {"nominative": {"m": "er", "n": "es"}, "dative": {"m": "en", "n": "en"}}
"""Of adjectives after the indefinite article, by case and gender."""


def caption(scene: Scene) -> str:
    """ "ein kleiner roter Kreis links von einem großen blauen Quadrat auf weißem Grund"."""
    first, *others = scene.shapes
    said = [phrase(first, "nominative")]
    for other in others:
        said += [RELATIONS[str(scene.relation)], phrase(other, "dative")]
    # Without an article the adjective itself shows the dative of "der Grund".
    return " ".join([*said, "auf", f"{BACKGROUNDS[scene.background]}em", "Grund"])


def phrase(shape: Shape, case: str) -> str:
    """A shape in a case: "ein kleines rosa Dreieck", "einem kleinen rosa Dreieck"."""
    noun, gender = KINDS[shape.kind]
    ending = ENDINGS[case][gender]
    adjectives = [
        word if word in INVARIABLE else word + ending
        for word in (SIZES[shape.size], COLOURS[shape.colour])
    ]
    return " ".join([ARTICLES[case][gender], *adjectives, noun])
