"""How a job asks for its image to be seen: the resolution mode, its size, and regions of it."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

MAX_REGIONS = 64
MAX_SIDE = 65_535

Mode = Annotated[
    Literal["stretch", "pad", "crop", "native"],
    Field(
        description="How an image that is not square is seen. stretch: squashed (BLIP's own); pad: "
        "whole, with bars; crop: its middle alone; native: in a grid of patches of about its "
        "own aspect ratio"
    ),
]
Resolution = Annotated[
    int,
    Field(
        ge=1,
        le=MAX_SIDE,
        description="Side in pixels of the square that is seen, for finer detail: a multiple of "
        "the model's patch size, up to four times its patches; absent, the model's own",
        examples=[576, 768],
    ),
]
Side = Annotated[int, Field(ge=0, le=MAX_SIDE)]


def _with_area(box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    left, top, right, bottom = box
    if left >= right or top >= bottom:
        raise ValueError("a region is [left, top, right, bottom], with left < right, top < bottom")
    return box


Box = Annotated[
    tuple[Side, Side, Side, Side],
    AfterValidator(_with_area),
    Field(
        description="[left, top, right, bottom] in pixels of the upright original image; right "
        "and bottom lie just outside",
        examples=[[0, 0, 640, 480]],
    ),
]


def box_of(text: str) -> tuple[int, int, int, int]:
    """A region as people type it: "left,top,right,bottom".

    Raises ValueError for anything else, an empty region included.
    """
    try:
        left, top, right, bottom = (int(number) for number in text.split(","))
    except ValueError:
        raise ValueError(f"a region is left,top,right,bottom in pixels, not {text!r}") from None
    if min(left, top) < 0:
        raise ValueError(f"a region lies inside the image, not at {text!r}")
    return _with_area((left, top, right, bottom))
