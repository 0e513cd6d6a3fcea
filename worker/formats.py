"""Which formats images may have, and what each needs before Pillow reads it.

Pillow reads some forty, and most security fixes are for those that nobody sends: only what is
named here is ever tried.
"""

from importlib.util import find_spec

from producer.beginnings import BEGINNINGS

__all__ = ["DEFAULT_FORMATS", "enable", "parse_formats"]

DEFAULT_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")

_ALIASES = {"JPG": "JPEG", "HEIC": "HEIF"}


def parse_formats(text: str) -> tuple[str, ...]:
    """Pillow's names of a comma-separated list, in any case, each once.

    Raises:
        ValueError: with what may stand there; also when HEIF is named and its reader is missing.
    """
    given = [name.strip().upper() for name in text.split(",")]
    names = tuple(dict.fromkeys(_ALIASES.get(name, name) for name in given if name))
    refused = [name for name in names if name not in BEGINNINGS]
    if refused or not names:
        raise ValueError(
            f"IMAGE_FORMATS: {', '.join(refused) or 'nothing'} is not accepted; "
            f"it may hold {', '.join(BEGINNINGS)}"
        )
    if "HEIF" in names and find_spec("pillow_heif") is None:
        raise ValueError('IMAGE_FORMATS: HEIF needs an extra: pip install "captionq[heic]"')
    return names


def enable(formats: tuple[str, ...]) -> None:
    """Have Pillow ready to read these formats; costs nothing but for the first time.

    Raises:
        ImportError: HEIF is among them, and its reader is missing.
    """
    if "HEIF" in formats:
        from PIL import Image

        if "HEIF" not in Image.OPEN:
            import pillow_heif

            pillow_heif.register_heif_opener(
                thumbnails=False, depth_images=False, aux_images=False, decode_threads=1
            )
    if "AVIF" in formats:
        from PIL import AvifImagePlugin

        AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # one image has one core
