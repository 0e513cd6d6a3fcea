"""Captions of scenes in the languages that the project writes them in, with each one's grammar.

A file a language: its words, and how they agree. As in English, a scene has one right caption, and
two scenes that differ in what is said have different ones.
"""

from collections.abc import Callable, Mapping

from worker.training.languages import arabic, chinese, french, german
from worker.training.scenes import Scene

LANGUAGES: Mapping[str, Callable[[Scene], str]] = {
    "en": lambda scene: scene.caption,
    "de": german.caption,
    "fr": french.caption,
    "zh": chinese.caption,
    "ar": arabic.caption,
}
"""What captions a scene, by BCP 47 language subtag."""


def caption(scene: Scene, language: str) -> str:
    """The right caption of a scene, in a language of LANGUAGES; regions are ignored (de-AT is de).

    Raises:
        ValueError: naming the languages there are.
    """
    primary = language.lower().partition("-")[0]
    if primary not in LANGUAGES:
        there = ", ".join(LANGUAGES)
        raise ValueError(f"scenes are captioned in {there}, not in {language!r}")
    return LANGUAGES[primary](scene)
