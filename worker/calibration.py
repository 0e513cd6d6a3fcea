"""Calibrated match probabilities: a small JSON beside a model, applied without scikit-learn.

ITM's probability, the sigmoid of its margin, ranks well but says too much: networks are too sure
(Guo et al. 2017, https://arxiv.org/abs/1706.04599). A calibration, fitted on pairs that people
have labelled (`captionq-worker calibrate`), is a curve from the margin to the share of pairs with
that margin that match. It holds for one revision of one model.

    CalibrationError        a file that is none
      CalibrationMismatch   a calibration of another revision
"""

import math
import tempfile
from bisect import bisect_right
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

FILE_NAME = "calibration.json"

Decision = Literal["match", "no_match"]
PositionZero = Literal["enc", "cls"]
Probability = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class CalibrationError(ValueError):
    """The file cannot be used as a calibration; the message says which and why."""


class CalibrationMismatch(CalibrationError):  # noqa: N818 - that is what it is
    """The calibration was fitted for another revision than the one that is served."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Platt(_Value):
    """The sigmoid of a line in the margin (Platt 1999); the identity is slope 1, intercept 0."""

    method: Literal["platt"] = "platt"
    slope: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    intercept: Finite

    def probability(self, margin: float) -> float:
        """In 0..1, rising with the margin."""
        return sigmoid(self.slope * margin + self.intercept)


class Isotonic(_Value):
    """Any rising curve (Zadrozny and Elkan 2002): straight between knots, level beyond them."""

    method: Literal["isotonic"] = "isotonic"
    margins: Annotated[tuple[Finite, ...], Field(min_length=1)]
    probabilities: tuple[Probability, ...]

    @model_validator(mode="after")
    def _rises(self) -> "Isotonic":
        if len(self.margins) != len(self.probabilities):
            raise ValueError("as many probabilities as margins are needed")
        if list(self.margins) != sorted(set(self.margins)):
            raise ValueError("margins must rise")
        if list(self.probabilities) != sorted(self.probabilities):
            raise ValueError("probabilities must not fall")
        return self

    def probability(self, margin: float) -> float:
        """In 0..1, not falling as the margin rises."""
        after = bisect_right(self.margins, margin)
        if after == 0:
            return self.probabilities[0]
        if after == len(self.margins):
            return self.probabilities[-1]
        x0, x1 = self.margins[after - 1 : after + 1]
        y0, y1 = self.probabilities[after - 1 : after + 1]
        return y0 + (y1 - y0) * (margin - x0) / (x1 - x0)


class Figures(_Value):
    """What probabilities are worth, on the pairs that nothing was fitted on.

    calibration_error: expected calibration error over 15 equal-width bins (Guo et al. 2017).
    """

    roc_auc: Probability
    average_precision: Probability
    calibration_error: Probability
    log_loss: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Calibration(_Value):
    """How the ITM margins of one model become probabilities and decisions.

    score: what the curve is of: `itm_logits[1] - itm_logits[0]`, whose sigmoid is ITM's own
    probability. position_zero: what ITM read its answer from; other margins are not these.
    threshold: of the calibrated probability: the lowest at which, in the pairs of the fit, at least
    `wanted_precision` of what is called a match is one. pairs: fitted on; held_out_pairs: those
    that `before`, `after`, `precision` and `recall` (of the decisions) were measured on.
    """

    version: Literal[1] = 1
    model_id: str
    revision: str
    score: Literal["itm_margin"] = "itm_margin"
    position_zero: PositionZero
    parameters: Annotated[Platt | Isotonic, Field(discriminator="method")]
    threshold: Probability
    wanted_precision: Probability
    pairs: Count
    held_out_pairs: Count
    before: Figures
    after: Figures
    precision: Probability
    recall: Probability

    @classmethod
    def load(cls, path: Path) -> "Calibration":
        """Read a file that `save` has written.

        Raises:
            CalibrationError: it is none, or of a version that this captionq does not know.
            OSError: it cannot be read.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as exc:
            first = exc.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise CalibrationError(
                f"{path} is no calibration: {where + ': ' if where else ''}{first['msg']}. "
                "Make it anew with captionq-worker calibrate, or remove it"
            ) from exc

    def save(self, path: Path) -> None:
        """Write it; whoever reads meanwhile sees the old file or the new one. Raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".calibration-") as folder:
            new = Path(folder) / path.name
            new.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
            new.replace(path)

    def probability(self, itm_margin: float) -> float:
        """The calibrated probability that image and text match."""
        return self.parameters.probability(itm_margin)

    def decision(self, probability: float) -> Decision:
        """What a calibrated probability means at this calibration's threshold."""
        return "match" if probability >= self.threshold else "no_match"

    def check(self, model_id: str, revision: str) -> None:
        """Refuse to serve another revision; equal revisions are equal weights under any name.

        Raises:
            CalibrationMismatch: naming both.
        """
        if revision != self.revision:
            raise CalibrationMismatch(
                f"the calibration is of {self.model_id} at revision {self.revision}, the model is "
                f"{model_id} at {revision}: fit it anew with captionq-worker calibrate, or remove "
                "it"
            )


def find(model_folder: Path | None, home: Path, model_id: str, revision: str) -> Calibration | None:
    """The calibration of a model: one kept in CAPTIONQ_HOME, else the one beside its weights.

    model_folder: None for a model that is no local folder. None is returned where there is none.

    Raises:
        CalibrationMismatch: it is of another revision.
        CalibrationError: it is no calibration.
        OSError: it cannot be read.
    """
    places = [kept_at(home, model_id, revision)]
    if model_folder is not None:
        places.append(model_folder / FILE_NAME)
    for path in places:
        try:
            found = Calibration.load(path)
        except FileNotFoundError:
            continue
        found.check(model_id, revision)
        return found
    return None


def kept_at(home: Path, model_id: str, revision: str) -> Path:
    """Where CAPTIONQ_HOME has the calibration of a model that has no folder of its own."""
    return home / "calibration" / f"{model_id.replace('/', '--')}-{revision}.json"


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), for any x."""
    if x >= 0:
        return 1 / (1 + math.exp(-x))
    grown = math.exp(x)
    return grown / (1 + grown)
