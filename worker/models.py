"""The models a worker serves: loaded once, called by batch key.

The batcher sees keys and payloads; here they become calls of the engine, and its answers become
the contract's: `run` alone is called by the device thread, and does nothing that a job's own thread
can do. Two tasks on the same checkpoint share one engine, hence one vision encoder.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from producer.contract import (
    Caption,
    CaptionJob,
    CaptionOptions,
    ErrorCode,
    ImageJob,
    Match,
    MatchJob,
    ModelFacts,
)
from producer.errors import PUBLIC_TEXT, JobFailed
from worker.errors import Fault

if TYPE_CHECKING:
    from worker.blip import Engine
    from worker.blip.framing import Framing


class BatchKey(NamedTuple):
    """What changes the shape of the computation, and so separates batches.

    resolution: the square's side where it is not the model's own. Modes share batches: their grids
    have about as many patches, and the engine masks the difference.
    """

    task: str
    num_beams: int = 1
    num_samples: int = 1
    resolution: int | None = None


class Models:
    """Engines by task, and the names by which jobs and results know their checkpoints.

    `make_options` turns the contract's caption options into the engine's.
    """

    def __init__(
        self, engines: "Mapping[str, Engine]", names: Mapping[str, str], make_options: Any
    ) -> None:
        self._engines = dict(engines)
        self._names = dict(names)
        self._make_options = make_options

    @property
    def served(self) -> list[tuple[str, str]]:
        """(task, model name) of everything loaded."""
        return [(task, self._names[task]) for task in self._engines]

    @property
    def device(self) -> str:
        """The torch device of all engines, e.g. "cuda:0"."""
        return next(iter(self._engines.values())).device

    def engine(self, task: str) -> "Engine":
        """The engine of a task.

        Raises:
            Fault: model_lacks_captioning or model_lacks_matching when it is not served here.
        """
        try:
            return self._engines[task]
        except KeyError:
            code = {
                "caption": ErrorCode.MODEL_LACKS_CAPTIONING,
                "match": ErrorCode.MODEL_LACKS_MATCHING,
            }[task]
            raise Fault(code, f"this worker serves {sorted(self._engines)}") from None

    def facts(self, task: str) -> ModelFacts:
        """Which weights answer a task."""
        engine = self.engine(task)
        return ModelFacts(id=self._names[task], revision=engine.revision, dtype=engine.dtype)

    def framing(self, job: ImageJob) -> "Framing":
        """How a job's image, or each of its regions, becomes the model's pixels.

        Raises:
            Fault: as `engine`.
            JobFailed: job_invalid for a resolution that the model cannot take.
        """
        try:
            return self.engine(job.task).framing(job.mode, job.resolution)
        except ValueError as exc:
            invalid = ErrorCode.JOB_INVALID
            raise JobFailed(invalid, f"{PUBLIC_TEXT[invalid]} {exc}") from exc

    def items(self, job: ImageJob, images: Sequence[Any]) -> tuple[BatchKey, list[Any]]:
        """A job and its framed images, uint8 [H, W, 3], as the batcher takes them."""
        size = self.engine(job.task).image_size
        resolution = None if size == (job.resolution, job.resolution) else job.resolution
        match job:
            case CaptionJob(options=options):
                samples = options.num_return_sequences if options.do_sample else 1
                key = BatchKey("caption", options.num_beams, samples, resolution)
                wanted: Any = self._engine_options(options)
            case MatchJob(texts=texts):
                key, wanted = BatchKey("match", resolution=resolution), list(texts)
        return key, [(pixels, wanted) for pixels in images]

    def run(self, key: BatchKey, payloads: Sequence[Any]) -> Sequence[Any]:
        """Run one batch on the device: what the engine says of each payload; see `outputs`."""
        engine = self.engine(key.task)
        # Native mode leaves images as they are that any mode has framed at this resolution.
        images = engine.encode([pixels for pixels, _ in payloads], "native", key.resolution)
        wanted = [wanted for _, wanted in payloads]
        if key.task == "caption":
            return engine.caption(images, wanted)
        return engine.match(images, wanted)

    def outputs(self, task: str, row: Sequence[Any]) -> tuple[Caption | Match, ...]:
        """What `run` gave for one payload, in the contract's words."""
        return tuple(map(_caption if task == "caption" else _match, row))

    def warm_up(self, max_batch: int) -> None:
        """Run the worst-case batch of this size on every engine once, before any work is taken."""
        for engine in self._distinct():
            engine.warmup(max_batch)

    def capture(self, max_batch: int) -> None:
        """Record what the device replays for batches up to this size, before any work is taken."""
        for engine in self._distinct():
            engine.capture(max_batch)

    def _distinct(self) -> "list[Engine]":
        return list({id(engine): engine for engine in self._engines.values()}.values())

    def _engine_options(self, options: CaptionOptions) -> Any:
        return self._make_options(**options.model_dump())


def _caption(found: Any) -> Caption:
    return Caption(
        text=found.text,
        tokens=tuple(found.tokens),
        token_logprobs=tuple(found.token_logprobs),
        processed_token_logprobs=tuple(found.processed_token_logprobs),
        logprob=found.logprob,
        mean_logprob=found.mean_logprob,
        score=found.score,
        finish_reason=found.finish_reason,
        seed=found.seed,
        count=found.count,
    )


def _match(found: Any) -> Match:
    return Match(
        text=found.text,
        itm_probability=found.itm_probability,
        itm_logit=found.itm_logit,
        itc_cosine=found.itc_cosine,
    )
