"""`captionq-worker merge-pack`: a pack and its base as one checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from worker.clear_errors import clear_errors
from worker.flags import Model
from worker.settings import BUNDLED, model_path


def merge_pack(
    pack: Annotated[Path, typer.Argument(help="The pack's folder.", metavar="PACK")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to make.")],
    model: Model = BUNDLED,
) -> None:
    """Write a full checkpoint that a pack and the model it was trained on make together.

    A worker needs no merged checkpoint: it serves many packs beside one model. This is for other
    programs: transformers loads the folder as any BLIP, with the pack's own tokenizer. It has the
    part of the pack's task alone, captioning or matching, in float32.
    """
    from worker.blip.merge import merge_pack as merge

    with clear_errors():
        print(merge(pack, output, model_path(model)))
