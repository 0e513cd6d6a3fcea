"""`captionq-worker check-image`: what a worker with these settings would say of image files."""

import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote_from_bytes

from typer import Argument

from worker.blip.framing import Framing
from worker.clear_errors import checked_settings, fail
from worker.errors import Fault
from worker.fetch.file import FileSource
from worker.settings import EX_CONFIG

if TYPE_CHECKING:
    from worker.sandbox import Sandbox

AT_A_TIME = 4
BLIP = Framing("stretch", (384, 384), 16, 3, (123, 117, 104))
"""How the published checkpoints see an image: bicubic, round it the preprocessor's mean."""

Files = Annotated[list[str], Argument(help="Files of any kind.", metavar="FILE...")]


def check_image(files: Files) -> None:
    """Say of each file whether a worker would take it as an image: one JSON line per file.

    {"file", "ok", "format", "width", "height", "code"}: width and height are those of the upright
    picture; code is null, or why it is refused. Files are read and decoded as a job's image is:
    with the worker's limits (see 'captionq-worker settings'), in processes that are killed when
    they take too long. The exit status is 0 whether or not they are images; 78 where none could be
    decoded, whatever it was.
    """
    from worker.house import make_sandbox

    settings = checked_settings()
    sandbox = make_sandbox(settings)
    try:
        sandbox.start()  # where no image can be decoded at all, no file is to blame
        source = FileSource(Path("/"), settings.max_bytes)
        for verdict in _verdicts(files, source, sandbox, settings.fetch_timeout_s):
            print(json.dumps(verdict), flush=True)
    except Fault as exc:
        raise fail(f"no image could be decoded: {exc}", EX_CONFIG) from None
    finally:
        sandbox.close()


def _verdicts(
    files: Sequence[str], source: FileSource, sandbox: "Sandbox", read_timeout_s: float
) -> Iterator[dict[str, Any]]:
    """In the order of `files`, some ahead of what was asked for."""
    left = iter(files)
    with ThreadPoolExecutor(AT_A_TIME) as threads:
        begun = [
            threads.submit(_verdict, file, source, sandbox, read_timeout_s)
            for file in islice(left, 2 * AT_A_TIME)
        ]
        while begun:
            yield begun.pop(0).result()
            begun += [
                threads.submit(_verdict, file, source, sandbox, read_timeout_s)
                for file in islice(left, 1)
            ]


def _verdict(
    file: str, source: FileSource, sandbox: "Sandbox", read_timeout_s: float
) -> dict[str, Any]:
    verdict = {
        "file": file, "ok": False, "format": None, "width": None, "height": None, "code": None,
    }  # fmt: skip
    uri = "file://" + quote_from_bytes(os.fsencode(os.path.abspath(file)))  # noqa: PTH100
    try:
        data = source.fetch(uri, time.monotonic() + read_timeout_s)
        facts = sandbox.decode(data, BLIP).facts
    except Fault as exc:
        return verdict | {"code": exc.code}
    return verdict | {
        "ok": True, "format": facts.format, "width": facts.width, "height": facts.height,
    }  # fmt: skip
