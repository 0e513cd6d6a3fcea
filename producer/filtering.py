"""How captions are weighed against their image, as a job says it (CapFilt, Li et al. 2022)."""

from typing import Annotated, Literal

from pydantic import Field

from producer.options import Model

_Word = Annotated[str, Field(min_length=1, max_length=64, pattern=r"\S")]

Reason = Literal["itm_probability", "calibrated_probability", "banned_word", "repetition"]
"""Why a caption is refused."""


class CaptionFilter(Model):
    """Rank the candidates of a caption job by the matching model, and refuse poor ones.

    The candidates are what `options` give: `num_return_sequences` beams, or samples. Refused ones
    stay in the result, behind the others, with their reasons. The worker has to serve a matching
    model beside the captioning one: else the job fails as model_lacks_matching.
    """

    min_itm_probability: float | None = Field(
        0.5,
        ge=0,
        le=1,
        description="Captions below are refused; 0.5 is the paper's own filter; null refuses none",
    )
    min_calibrated_probability: float | Literal["threshold"] | None = Field(
        None,
        description="The same of the calibrated probability; 'threshold' is the one that the "
        "calibration was made with. Needs a calibrated model",
    )
    banned_words: tuple[_Word, ...] = Field(
        (),
        max_length=256,
        description="Captions with one of these words or phrases are refused, whatever their case",
    )
    refuse_repetition: bool = Field(
        True, description="Captions that say the same words twice in a row are refused"
    )
