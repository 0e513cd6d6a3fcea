"""`captionq-worker check-image`: what a worker with these settings would say of image files."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote_from_bytes

from typer import Argument

from worker.blip.framing import PUBLISHED
from worker.clear_errors import checked_settings, fail
from worker.errors import Fault
from worker.fetch.file import FileSource
from worker.settings import EX_CONFIG

if TYPE_CHECKING:
    from worker.sandbox import Sandbox

AT_A_TIME = 4
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
        verdict = partial(
            _verdict, source=source, sandbox=sandbox, read_timeout_s=settings.fetch_timeout_s
        )
        with ThreadPoolExecutor(AT_A_TIME) as threads:
            for one in threads.map(verdict, files):
                print(json.dumps(one), flush=True)
    except Fault as exc:
        raise fail(f"no image could be decoded: {exc}", EX_CONFIG) from None
    finally:
        sandbox.close()


def _verdict(
    file: str, source: FileSource, sandbox: "Sandbox", read_timeout_s: float
) -> dict[str, Any]:
    verdict = {
        "file": file, "ok": False, "format": None, "width": None, "height": None, "code": None,
    }  # fmt: skip
    uri = "file://" + quote_from_bytes(os.fsencode(os.path.abspath(file)))  # noqa: PTH100
    try:
        data = source.fetch(uri, time.monotonic() + read_timeout_s)
        facts = sandbox.decode(data, PUBLISHED).facts
    except Fault as exc:
        return verdict | {"code": exc.code}
    return verdict | {
        "ok": True, "format": facts.format, "width": facts.width, "height": facts.height,
    }  # fmt: skip
