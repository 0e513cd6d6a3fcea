"""`captionq-worker caption` and `match`: image files in, captions and scores out, no queue."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from producer.framing import MAX_REGIONS, box_of
from producer.options import STYLES, Style
from worker import flags
from worker.caption_style import once, styled
from worker.clear_errors import clear_errors
from worker.image_files import ImageFiles
from worker.packs.by_hand import language_of, pack_of
from worker.settings import BUNDLED, model_path

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from worker.blip import Caption, CaptionOptions, Engine, Match

UNREADABLE = 1  # exit status when an image file could not be read


def caption(
    images: flags.Images,
    model: flags.Model = BUNDLED,
    language: flags.Language = None,
    pack: flags.Pack = None,
    dtype: flags.Dtype = "float32",
    device: flags.Device = "auto",
    style: flags.Style = None,
    beams: flags.Beams = None,
    count: flags.Count = 1,
    min_tokens: flags.MinTokens = None,
    max_tokens: flags.MaxTokens = None,
    max_chars: flags.MaxChars = None,
    stop: flags.Stop = None,
    prompt: flags.Prompt = None,
    prefix: flags.Prefix = None,
    ban: flags.Ban = None,
    length_penalty: flags.LengthPenalty = 1.0,
    repetition_penalty: flags.RepetitionPenalty = 1.0,
    no_repeat_ngram: flags.NoRepeatNgram = None,
    sample: flags.Sample = False,
    temperature: flags.Temperature = 1.0,
    top_k: flags.TopK = 0,
    top_p: flags.TopP = 1.0,
    min_p: flags.MinP = 0.0,
    seed: flags.Seed = None,
    mode: flags.Mode = "stretch",
    resolution: flags.Resolution = None,
    region: Annotated[
        list[str] | None,
        typer.Option(metavar="L,T,R,B", help="Caption this part of each image; repeat for more."),
    ] = None,
    as_json: flags.AsJson = False,
) -> None:
    """Caption image files without a queue, or with --region parts of them.

    The default is BLIP's reference decoding: 3 beams, 5 to 20 tokens. A file that cannot be read
    is reported on stderr, the others are captioned, and the exit status is 1. Several captions of
    an image are printed best first, equal ones once.
    """
    from worker.blip import CaptionOptions

    with clear_errors():
        options = CaptionOptions(
            num_beams=cast(int, beams),  # None: as the other options say
            num_return_sequences=count,
            **_lengths(
                style,
                min_new_tokens=min_tokens,
                max_new_tokens=max_tokens,
                max_chars=max_chars,
                no_repeat_ngram_size=no_repeat_ngram,
            ),
            whole_words=style is not None,
            stop_strings=stop or (),
            prompt=prompt,
            prefix=prefix,
            bad_words=ban or (),
            length_penalty=length_penalty,
            repetition_penalty=repetition_penalty,
            do_sample=sample,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            seed=seed,
        )
        boxes = [box_of(given) for given in region or ()]
        if len(boxes) > MAX_REGIONS:
            raise ValueError(f"at most {MAX_REGIONS} regions, not {len(boxes)}")
        engine = _engine(model, device, dtype, "caption")
        answering = pack_of(engine, "caption", model, language, pack)
        spoken = language_of(answering) if style else ""
        files = ImageFiles(images, engine.framing(mode, resolution), boxes)

        def ask(framed: "list[NDArray[np.uint8]]") -> "list[list[Caption]]":
            # Native mode leaves images as they are that any mode has framed.
            found = engine.caption(
                framed, options, packs=answering, mode="native", resolution=resolution
            )
            if style is None:
                return found
            return [_styled(row, style, spoken, options) for row in found]

        for image, found in files.answers(ask):
            if as_json:
                rows = [_document(row, options.num_return_sequences) for row in found]
                said = (
                    {"regions": [{"box": b, **row} for b, row in zip(boxes, rows, strict=True)]}
                    if boxes
                    else rows[0]
                )
                print(json.dumps({"image": str(image), **said}), flush=True)
                continue
            places = ["\t" + ",".join(map(str, box)) for box in boxes] or [""]
            for place, row in zip(places, found, strict=True):
                for one in row:
                    print(f"{image}{place}\t{one.text}\t{one.logprob:.3f}", flush=True)
    _end(files)


def _lengths(style: Style | None, **given: int | None) -> dict[str, Any]:
    """Options as they are given, or as a style sets them, or not at all."""
    of_style: Mapping[str, int] = STYLES.get(style, {})
    named = {**of_style, **{name: one for name, one in given.items() if one is not None}}
    if given["min_new_tokens"] is None and "min_new_tokens" in named:
        named["min_new_tokens"] = min(named["min_new_tokens"], named["max_new_tokens"])
    return named


def _styled(
    captions: "list[Caption]", style: Style, spoken: str, options: "CaptionOptions"
) -> "list[Caption]":
    finished = []
    for one in captions:
        cut, prefixed = one.finish_reason == "length", bool(options.prefix)
        text = styled(one.text, style, spoken, cut=cut, prefixed=prefixed)
        finished.append(replace(one, text=text))
    return [replace(one, count=count) for one, count in once(finished)]


def _document(found: "list[Caption]", count: int) -> dict[str, Any]:
    """The captions of an image, and where several were asked for, how much they differ."""
    from worker.blip import distinct_2

    document: dict[str, Any] = {"captions": [asdict(one) for one in found]}
    if count > 1:
        document["distinct_2"] = distinct_2([one.text for one in found for _ in range(one.count)])
    return document


def match(
    images: flags.Images,
    text: Annotated[list[str], typer.Option(help="A text to match; repeat for more.")],
    model: flags.Model = BUNDLED,
    language: flags.Language = None,
    pack: flags.Pack = None,
    dtype: flags.Dtype = "float32",
    device: flags.Device = "auto",
    position_zero: Annotated[
        Literal["enc", "cls"] | None,
        typer.Option(help="enc (the paper's, default) or cls (Hugging Face's) before the text."),
    ] = None,
    mode: flags.Mode = "stretch",
    resolution: flags.Resolution = None,
    as_json: flags.AsJson = False,
) -> None:
    """Match image files with texts without a queue: ITM probability and ITC cosine of each.

    A file that cannot be read is reported on stderr, the others are matched, and the exit status
    is 1.
    """
    with clear_errors():
        engine = _engine(model, device, dtype, "match")
        answering = pack_of(engine, "match", model, language, pack)
        files = ImageFiles(images, engine.framing(mode, resolution))

        def ask(framed: "list[NDArray[np.uint8]]") -> "list[list[Match]]":
            return engine.match(
                framed,
                text,
                position_zero,
                pack=answering,
                mode="native",
                resolution=resolution,
            )

        for image, [found] in files.answers(ask):
            rows = [
                {
                    "text": one.text,
                    "itm_probability": one.itm_probability,
                    "itm_logit": one.itm_logit,
                    "itc_cosine": one.itc_cosine,
                }
                for one in found
            ]
            if as_json:
                print(json.dumps({"image": str(image), "matches": rows}), flush=True)
                continue
            for one in found:
                scores = f"{one.itm_probability:.3f}\t{one.itc_cosine:.3f}"
                print(f"{image}\t{one.text}\t{scores}", flush=True)
    _end(files)


def _end(files: ImageFiles) -> None:
    if files.unreadable:
        raise typer.Exit(UNREADABLE)


def _engine(model: str, device: str, dtype: str, task: str) -> "Engine":
    from worker.blip import Engine

    return Engine.load(model_path(model), device=device, dtype=dtype, tasks=(task,))
