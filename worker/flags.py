"""Flags of `captionq-worker` that several commands take, or that take a line each."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

Model = Annotated[
    str,
    Option(
        help="Checkpoint: a folder, a hub id such as Salesforce/blip-image-captioning-base, or "
        "'bundled' for the small one inside the package (drawn scenes only)."
    ),
]
Device = Annotated[str, Option(help="auto, cpu, cuda or cuda:N.")]
Dtype = Annotated[str, Option(help="auto, float32, bfloat16, float16, or int8 (CPU).")]
AsJson = Annotated[bool, Option("--json", help="One JSON document a line, nothing else.")]
Images = Annotated[list[Path], Argument(help="Image files.", metavar="IMAGE...")]
Mode = Annotated[
    Literal["stretch", "pad", "crop", "native"],
    Option(
        help="How an image that is not square is seen: squashed (BLIP's own), whole with bars, its "
        "middle alone, or in a grid of patches of about its own aspect ratio."
    ),
]
Resolution = Annotated[
    int | None,
    Option(metavar="PIXELS", help="Side of the square seen, for finer detail."),
]
Language = Annotated[
    str | None,
    Option(
        metavar="TAG",
        help="Of the words, as BCP 47: de. A pack of CAPTIONQ_PACKS, or of the bundled checkpoint, "
        "answers by RFC 4647: de for de-AT.",
    ),
]
Pack = Annotated[
    str | None,
    Option(metavar="NAME|FOLDER", help="A language or domain pack, by its name or its folder."),
]
Style = Annotated[
    Literal["alt_text", "short", "long"] | None,
    Option(
        help="alt_text: at most 125 characters, without 'a picture of', ending cleanly; short: 3 "
        "to 10 tokens; long: 20 to 50. Options given besides hold."
    ),
]

# How to decode; CaptionOptions says the rest.

Beams = Annotated[int | None, Option(help="1 is greedy search. By default 3, or 1 with --sample.")]
Count = Annotated[
    int, Option("--count", "-n", help="Captions per image, of its beams, or samples drawn.")
]
MinTokens = Annotated[
    int | None, Option(help="Fewest new tokens; by default 5, or the style's, or --max-tokens.")
]
MaxTokens = Annotated[int | None, Option(help="Most new tokens; by default 20, or the style's.")]
MaxChars = Annotated[
    int | None, Option(help="Most characters of the text, which ends with a whole word.")
]
Stop = Annotated[
    list[str] | None, Option(help="End with this text when it comes; repeat for more.")
]
Prompt = Annotated[str | None, Option(help="Words the caption continues.")]
Prefix = Annotated[str | None, Option(help="Words the caption begins with, and keeps.")]
Ban = Annotated[list[str] | None, Option(help="A word or phrase to avoid; repeat for more.")]
LengthPenalty = Annotated[
    float, Option(help="Of beam search: higher favours longer captions, 0 counts no length.")
]
RepetitionPenalty = Annotated[
    float, Option(help="Above 1 makes tokens that have been seen less likely.")
]
NoRepeatNgram = Annotated[
    int | None, Option(help="No so many tokens come twice; 0 is off, the default but for long.")
]
Sample = Annotated[bool, Option("--sample", help="Draw each token instead of searching.")]
Temperature = Annotated[float, Option(help="With --sample: logits are divided by it.")]
TopK = Annotated[int, Option(help="With --sample: only the k likeliest tokens; 0 is off.")]
TopP = Annotated[float, Option(help="With --sample: only the likeliest tokens of this mass.")]
MinP = Annotated[
    float, Option(help="With --sample: no token below this part of the likeliest's probability.")
]
Seed = Annotated[
    int | None,
    Option(help="With --sample: determines what is drawn; by default another each time."),
]
