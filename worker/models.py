"""The models a worker serves: loaded once, called by batch key.

The batcher sees keys and payloads; here they become calls of the engines: `run` alone is called by
the device thread, and does nothing that a job's own thread can do (worker/answer.py makes of it
what the contract says). Two tasks on the same checkpoint share one engine, hence one vision
encoder; so do two checkpoints whose vision encoders are the same.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from producer.contract import (
    CaptionJob,
    CaptionOptions,
    EmbedJob,
    ErrorCode,
    ExplainJob,
    ExplainOptions,
    ImageFacts,
    ImageJob,
    MatchJob,
    ModelFacts,
    RankJob,
)
from producer.errors import PUBLIC_TEXT, JobFailed
from producer.queues import model_task
from worker.answer import Answer, Interpreter, Looked
from worker.asked import Asked, BatchKey, Plan
from worker.errors import Fault
from worker.packs.answering import NO_PACKS, Answering
from worker.packs.choice import Unavailable
from worker.packs.library import Packs

if TYPE_CHECKING:
    from worker.blip import Engine
    from worker.blip.framing import Framing
    from worker.blip.pack import Pack
    from worker.calibration import Calibration

TOKENS_OF_AN_IMAGE = 500
"""So many tokens of text cost about what encoding one image does (BLIP-base: 110 GFLOP)."""

MOST_TOKENS = 8_192
"""Tokens of the texts of one item; a job with more has several."""

MOST_RANKED_TOKENS = 16_384
"""Tokens of the texts of a rank job, which is one item."""

EXPLAINED_WEIGHT = {None: 1, "attention": 1, "gradcam": 2, "rollout": 3}
"""What an image costs that is explained by a method: rollout looks at it anew, and keeps what its
encoder attends to."""

RAW_OF_AN_IMAGE = 4_000_000
"""Numbers of raw maps that take about the memory of one image (16 MB)."""

MOST_RAW = 100_000_000
"""Of one job: 0.4 GB until it is written."""

LACKS = {
    "caption": ErrorCode.MODEL_LACKS_CAPTIONING,
    "match": ErrorCode.MODEL_LACKS_MATCHING,
}


class Models:
    """Engines by task, and the names by which jobs and results know their checkpoints.

    `make_options` turns the contract's caption options into the engine's. `calibration` is of the
    matching model. `packs` adapt the engines to languages and domains; without any, there are none.
    """

    def __init__(
        self,
        engines: "Mapping[str, Engine]",
        names: Mapping[str, str],
        make_options: Any,
        calibration: "Calibration | None" = None,
        packs: Packs | None = None,
    ) -> None:
        self._packs = packs or Packs({})
        self._engines = dict(engines)
        self._names = dict(names)
        self._make_options = make_options
        self._calibration = calibration
        matcher, captioner = self._engines.get("match"), self._engines.get("caption")
        self._one_vision = matcher is captioner or (
            matcher is not None and captioner is not None and matcher.share_vision(captioner)
        )
        self._interpreter = Interpreter(language=self._packs.language)
        if matcher is not None:
            self._interpreter = replace(
                self._interpreter,
                matcher=self.facts("match"),
                position_zero=matcher.position_zero,
                calibration=calibration,
            )

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
            return self._engines[model_task(task)]
        except KeyError:
            detail = f"this worker serves {sorted(self._engines)}"
            raise Fault(LACKS[model_task(task)], detail) from None

    def facts(self, task: str) -> ModelFacts:
        """Which weights answer a task."""
        engine = self.engine(task)
        name = self._names[model_task(task)]
        return ModelFacts(id=name, revision=engine.revision, dtype=engine.dtype)

    def facts_of(self, job: ImageJob) -> dict[str, Any]:
        """Which weights answer a job, by the names of JobResult's fields."""
        facts = {"model": self.facts(job.task)}
        if _is_weighed(job):
            facts["match_model"] = self.facts("match")
        return facts

    def seen_by(self, job: ImageJob, packs: Answering = NO_PACKS) -> list[Any]:
        """What decides, of this worker's models, how a job is answered: JSON."""
        facts = [facts.model_dump() for facts in self.facts_of(job).values()]
        calibration = self._calibration and self._calibration.model_dump(mode="json")
        return [*facts, calibration, packs.facts_json, self._packs.language]

    def plan(self, job: ImageJob) -> Plan:
        """How a job is to be answered: what it asks for is known to be there, and not loaded yet.

        Raises:
            Fault: as `engine`.
            JobFailed: language_unavailable; job_invalid for what the models here cannot do.
        """
        framing = self._framing(job)
        task = model_task(job.task)
        chosen = self._packs.choose(task, job.language, job.adapter)
        weighing = None
        if isinstance(job, CaptionJob) and job.filter is not None:
            spoken = job.language if chosen is None else chosen.language
            try:
                weighing = self._packs.choose("match", spoken, None)
            except Unavailable as exc:
                raise Unavailable(f"filter: {exc.message}") from exc
            if weighing is not None and job.filter.min_calibrated_probability is not None:
                raise _invalid("filter.min_calibrated_probability: a pack is not calibrated")
        return Plan(framing, chosen, weighing, self._packs.take)

    def _framing(self, job: ImageJob) -> "Framing":
        if _is_weighed(job):
            self.engine("match")
            self._check_calibrated(job)
        engine, explain = self.engine(job.task), getattr(job, "explain", None)
        if getattr(job, "position_zero", None) == "enc" and engine.position_zero != "enc":
            raise _invalid("position_zero: the tokenizer of the model here has no [ENC]")
        try:
            if explain is not None:
                engine.check_explanation(explain.layers, explain.heads)
            return engine.framing(job.mode, job.resolution)
        except ValueError as exc:
            raise _invalid(str(exc)) from exc

    def items(
        self, job: ImageJob, images: Sequence[Any], packs: Answering = NO_PACKS
    ) -> tuple[BatchKey, list[Asked]]:
        """A job and its framed images, uint8 [H, W, 3], as the batcher takes them.

        packs: of its plan.

        Raises:
            JobFailed: job_invalid for texts that the model has no room for.
        """
        key, asked = self._items(job, images, packs.pack)
        if key.task != "caption":
            key = key._replace(pack=packs.key)
        elif packs.weigher is not None:
            key = key._replace(pack=packs.weigher_key)
        return key, [one._replace(packs=packs) for one in asked]

    def _items(
        self, job: ImageJob, images: Sequence[Any], pack: "Pack | None"
    ) -> tuple[BatchKey, list[Asked]]:
        size = self.engine(job.task).image_size
        resolution = None if size == (job.resolution, job.resolution) else job.resolution
        match job:
            case CaptionJob(options=options):
                samples = options.num_return_sequences if options.do_sample else 1
                weighed = _is_weighed(job)
                key = BatchKey("caption", options.num_beams, samples, resolution, weighed)
                key = key._replace(explain=_how(job.explain))
                wanted = self._engine_options(options)
                tokens = options.num_return_sequences * options.max_new_tokens
                weight = self._weight(job, tokens)
                one = Asked(None, wanted, weight, filtered=job.filter is not None)
                return key, [one._replace(pixels=pixels) for pixels in images]
            case MatchJob():
                key = BatchKey("match", resolution=resolution, position_zero=job.position_zero)
                key = key._replace(explain=_how(job.explain))
                texts = self._token_ids("match", job.texts, pack)
                parts, weight = _parts(texts), self._weight(job, sum(map(len, texts)))
                return key, [Asked(images[0], part, weight + _cost(part)) for part in parts]
            case ExplainJob(texts=texts):
                read = self._token_ids("caption", texts, pack)  # there has to be room for them
                key = BatchKey("explain", resolution=resolution, explain=_how(job.explain))
                weight = self._weight(job, sum(map(len, read))) + _cost(read)
                return key, [Asked(images[0], list(texts), weight)]
            case RankJob():
                key = BatchKey(
                    "rank", resolution=resolution, position_zero=job.position_zero, k=job.k
                )
                return key, [self._ranked(job, images[0], pack)]
            case EmbedJob(texts=texts):
                if texts is None:
                    key = BatchKey("embed", resolution=resolution)
                    return key, [Asked(pixels, None) for pixels in images]
                parts = _parts(self._token_ids("match", texts, pack))
                asked = [Asked(None, part, max(1, _cost(part))) for part in parts]
                return BatchKey("embed_texts"), asked

    def run(self, key: BatchKey, payloads: Sequence[Asked]) -> Sequence[Any]:
        """Run one batch on the device: what the engines say of each payload; see `answer`."""
        wanted = [one.wanted for one in payloads]
        one_pack = _one_pack(payloads[0].packs.pack)
        if key.task == "embed_texts":
            texts = [text for part in wanted for text in part]
            vectors = self.engine("embed").embed(texts=texts, **one_pack)
            rows = iter(vectors.tolist())
            return [[next(rows) for _ in part] for part in wanted]
        engine = self.engine(key.task)
        pixels = [one.pixels for one in payloads]
        # Native mode leaves images as they are that any mode has framed at this resolution.
        images = engine.encode(pixels, "native", key.resolution)
        match key.task:
            case "caption":
                captions = engine.caption(images, wanted, **_packs_of(payloads))
                looked = [Looked(row) for row in captions]
                if key.weighed:
                    looked = self._weighed(key, images, payloads, captions)
                if key.explain is None:
                    return looked
                found = self._explained(key, images, payloads, captions, wanted)
                return _with(found, looked)
            case "match":
                matches = engine.match(images, wanted, key.position_zero, **one_pack)
                looked = [Looked((), row) for row in matches]
                if key.explain is None:
                    return looked
                return _with(self._explained(key, images, payloads, wanted), looked)
            case "explain":
                found = self._explained(key, images, payloads, wanted)
                return [Looked((), explanations=row) for row in found]
            case "rank":
                return engine.rank(images, wanted, key.k, key.position_zero, **one_pack)
            case _:
                return [[vector] for vector in engine.embed(images, **one_pack).tolist()]

    def answer(
        self,
        job: ImageJob,
        said: Sequence[Any],
        image: ImageFacts | None = None,
        packs: Answering = NO_PACKS,
    ) -> Answer:
        """What `run` gave for each item of a job, in their order, in the contract's words.

        image: the job's, which explanations are placed on. packs: those that answered.
        """
        interpreter = self._interpreter.adapted(job.task, packs)
        if image is None or getattr(job, "explain", None) is None:
            return interpreter.answer(job, said)
        from worker.blip.placement import placed

        grid = placed(self._framing(job), image.width, image.height)
        return interpreter.answer(job, said, grid)

    def tell(self, progress: Callable[[], None]) -> None:
        """Call `progress` whenever a part of a long batch is done."""
        for engine in self._distinct():
            engine.tell(progress)

    def warm_up(self, max_batch: int) -> None:
        """Run the worst-case batch of this size on every engine once, before any work is taken."""
        for engine in self._distinct():
            engine.warmup(max_batch)

    def capture(self, max_batch: int) -> None:
        """Record what the device replays for batches up to this size, before any work is taken."""
        for engine in self._distinct():
            engine.capture(max_batch)

    def _weighed(
        self, key: BatchKey, images: Any, payloads: Sequence[Asked], captions: Sequence[Any]
    ) -> list[Looked]:
        """Captions with their matches: on the same pass of the vision encoder, where the two models
        share it, else on another. Vectors are the checkpoint's own, whatever pack weighs; captions
        that nothing filters have no matches."""
        matcher = self.engine("match")
        if not self._one_vision:
            own = self.engine("caption").image_size
            side = own[0] if own != matcher.image_size else None
            pixels = [one.pixels for one in payloads]
            images = matcher.encode(pixels, "native", key.resolution or side)
        asked = zip(payloads, captions, strict=True)
        texts = [[one.text for one in row] if item.filtered else [] for item, row in asked]
        matches = matcher.match(images, texts, **_one_pack(payloads[0].packs.weigher))
        vectors = matcher.embed(images).tolist()
        return [Looked(*row) for row in zip(captions, matches, vectors, strict=True)]

    def _explained(
        self,
        key: BatchKey,
        images: Any,
        payloads: Sequence[Asked],
        texts: Sequence[Any],
        options: Sequence[Any] | None = None,
    ) -> Sequence[Sequence[Any]]:
        """Where the model looked for the words of each image's captions or texts."""
        how = key.explain
        if how is None:
            raise RuntimeError("there is nothing to explain")
        engine = self.engine(key.task)
        from_pixels = how.method == "rollout"
        named: dict[str, Any] = {
            "method": how.method,
            "layers": how.layers,
            "heads": how.heads,
            "raw": how.raw,
            "mode": "native",
            "resolution": key.resolution,
        }
        seen = [one.pixels for one in payloads] if from_pixels else images
        if key.task == "match":
            named |= _one_pack(payloads[0].packs.pack)
            return engine.explain_match(seen, texts, key.position_zero, **named)
        return engine.explain(seen, texts, options, **named | _packs_of(payloads))

    def _check_calibrated(self, job: ImageJob) -> None:
        rules = job.filter if isinstance(job, CaptionJob) else None
        asked = rules is not None and rules.min_calibrated_probability is not None
        if asked and not self._interpreter.calibrated:
            raise _invalid("filter.min_calibrated_probability: the model here is not calibrated")

    def _token_ids(
        self, task: str, texts: Sequence[str], pack: "Pack | None"
    ) -> list[Sequence[int]]:
        engine = self.engine(task)
        try:
            return [engine.token_ids(text, **_one_pack(pack)) for text in texts]
        except ValueError as exc:
            raise _invalid(str(exc)) from exc

    def _ranked(self, job: RankJob, pixels: Any, pack: "Pack | None") -> Asked:
        token_ids = self._token_ids("match", job.texts, pack)
        if (tokens := sum(map(len, token_ids))) > MOST_RANKED_TOKENS:
            raise _invalid(f"texts: {tokens} tokens, a rank job has {MOST_RANKED_TOKENS} at most")
        return Asked(pixels, token_ids, 1 + _cost(token_ids))

    def _distinct(self) -> "list[Engine]":
        return list({id(engine): engine for engine in self._engines.values()}.values())

    def _weight(self, job: CaptionJob | MatchJob | ExplainJob, tokens: int) -> int:
        """What explaining so many tokens of an image costs, with the image."""
        how = job.explain
        weight = EXPLAINED_WEIGHT[None if how is None else how.method]
        if how is None or not how.raw:
            return weight
        numbers = self.engine(job.task).raw_numbers(tokens, job.resolution)
        if numbers > MOST_RAW:
            raise _invalid(f"explain.raw: {numbers} numbers, a job has {MOST_RAW} at most")
        return weight + numbers // RAW_OF_AN_IMAGE

    def _engine_options(self, options: CaptionOptions) -> Any:
        whole = {} if options.style is None else {"whole_words": True}
        return self._make_options(**options.model_dump(exclude={"style"}), **whole)


def _with(found: Sequence[Sequence[Any]], looked: Sequence[Looked]) -> list[Looked]:
    """What was said of images, and where the model looked."""
    return [replace(one, explanations=row) for one, row in zip(looked, found, strict=True)]


def _packs_of(payloads: Sequence[Asked]) -> dict[str, Any]:
    """The pack of each row, as the engine's calls take them; nothing where there are none."""
    packs = [one.packs.pack for one in payloads]
    return {} if all(pack is None for pack in packs) else {"packs": packs}


def _one_pack(pack: "Pack | None") -> dict[str, Any]:
    return {} if pack is None else {"pack": pack}


def _how(given: ExplainOptions | None) -> ExplainOptions | None:
    """What of it separates batches: not what becomes of the maps."""
    after = {"sink": None, "pictures": False, "inline": False}
    return None if given is None else given.model_copy(update=after)


def _is_weighed(job: ImageJob) -> bool:
    return isinstance(job, CaptionJob) and not (job.filter is None and job.embed is None)


def _invalid(detail: str) -> JobFailed:
    code = ErrorCode.JOB_INVALID
    return JobFailed(code, f"{PUBLIC_TEXT[code]} {detail}")


def _cost(texts: Sequence[Sequence[int]]) -> int:
    return sum(map(len, texts)) // TOKENS_OF_AN_IMAGE


def _parts(texts: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    """Consecutive texts of at most MOST_TOKENS together."""
    part: list[Sequence[int]] = []
    tokens = 0
    for text in texts:
        if part and tokens + len(text) > MOST_TOKENS:
            yield part
            part, tokens = [], 0
        part.append(text)
        tokens += len(text)
    yield part
