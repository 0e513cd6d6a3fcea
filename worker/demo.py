"""The main job end to end on one machine, with nothing pretended: `make demo`.

Starts a Redis server, an S3 server (rclone), an HTTP server and a worker process, submits caption
and match jobs by http://, s3:// and file://, shows what came back, and ends all it started.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from producer.client import Client, JobHandle
from producer.contract import CaptionJob, ErrorCode, JobResult, JobState, MatchJob, public_uri
from producer.embedded import RedisServer
from worker.demo_page import page, until_interrupted
from worker.embedded_s3 import S3Server
from worker.settings import BUNDLED
from worker.training import scenes

BUCKET = "pictures"
FALSE_TEXT = "an empty page"
JOBS_TIMEOUT_S = 300
STOP_TIMEOUT_S = 30
WIDTH = 118
"""Columns of the table where no terminal says otherwise."""


class Picture(NamedTuple):
    """An image of the demo: where workers find it and, for a drawn one, what is true of it."""

    uri: str
    true_text: str | None = None
    false_text: str = FALSE_TEXT
    expected: ErrorCode | None = None


class Shown(NamedTuple):
    """A picture and the results of its two jobs; there is no match when nothing was captioned."""

    picture: Picture
    caption: JobResult
    match: JobResult | None


def main(
    images: list[str], svg: Path | None = None, seed: int | None = None, serve: bool = False
) -> int:
    """Run the demo on the user's images, or on drawn scenes; returns the exit status. With `serve`
    everything stays up beside a page, until it is interrupted.

    The status is 0 when every job ended as expected: the damaged file with image_corrupt, all
    others with a result.
    """
    rng = random.Random(seed)
    console = Console(record=svg is not None, width=WIDTH if svg else None)
    if console.width < WIDTH and not console.is_terminal:
        console.width = WIDTH
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="captionq-demo-")))
        console.print("starting Redis, an S3 server, an HTTP server and a worker ...")
        redis = stack.enter_context(RedisServer(folder / "redis"))
        s3 = stack.enter_context(_s3_server(folder / "s3"))
        web, web_port = stack.enter_context(_http_server(folder / "web"))
        files = folder / "files"
        files.mkdir()
        pictures = (
            _own(images, files)
            if images
            else _drawn(rng, web, web_port, folder / "s3" / BUCKET, files)
        )
        environment = {
            "CAPTIONQ_BROKER_URL": redis.url,
            "CAPTIONQ_FILE_ROOT": str(files),
            "CAPTIONQ_FETCH_ALLOW": f"127.0.0.1/32:{web_port}",
            "CAPTIONQ_S3_ENDPOINT_URL": s3.endpoint_url,
            "CAPTIONQ_MAX_BATCH": "8",
            "AWS_ACCESS_KEY_ID": s3.access_key,
            "AWS_SECRET_ACCESS_KEY": s3.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        stack.enter_context(_worker(environment, folder / "worker.log"))
        client = stack.enter_context(Client(redis.url))
        shown = _run_jobs(client, pictures, console)
        if not images and not os.environ.get("CAPTIONQ_CAPTION_MODEL"):
            console.print(
                "[dim]The model is the small one that comes with captionq: it knows drawn scenes, "
                "not photographs.\nCAPTIONQ_CAPTION_MODEL=Salesforce/blip-image-captioning-base "
                "CAPTIONQ_MATCH_MODEL=Salesforce/blip-itm-base-coco change that.[/dim]"
            )
        console.print(_table(shown))
        results = [result for row in shown for result in (row.caption, row.match) if result]
        console.print(summary(results), highlight=False)
        if svg:
            picture = console.export_svg(title="make demo")
            svg.write_text(re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL))
        if serve:
            served = page(os.environ | environment, files, folder / "gateway.log")
            url = stack.enter_context(served)
            console.print(
                f"page: {url}  Drop a picture on it, or paste an address; Ctrl-C ends.",
                highlight=False,
            )
            until_interrupted()
    return 0 if all(map(_as_expected, shown)) else 1


def summary(results: list[JobResult]) -> str:
    """The demo's last line.

    >>> summary([])
    'demo: 0 jobs, 0 succeeded, 0 failed'
    """
    failed = [result for result in results if result.state is not JobState.SUCCEEDED]
    codes = Counter(result.error.code.value for result in failed if result.error)
    listed = ", ".join(f"{code} {n}" for code, n in sorted(codes.items()))
    return (
        f"demo: {len(results)} jobs, {len(results) - len(failed)} succeeded, "
        f"{len(failed)} failed" + (f" ({listed})" if listed else "")
    )


def _as_expected(row: Shown) -> bool:
    results = [result for result in (row.caption, row.match) if result]
    if row.picture.expected:
        return all(r.error is not None and r.error.code is row.picture.expected for r in results)
    return all(result.state is JobState.SUCCEEDED for result in results)


def _drawn(
    rng: random.Random, web: Path, web_port: int, bucket: Path, files: Path
) -> list[Picture]:
    bucket.mkdir(parents=True)
    places = [
        (web / "scene-1.jpg", f"http://127.0.0.1:{web_port}/scene-1.jpg"),
        (web / "scene-2.png", f"http://127.0.0.1:{web_port}/scene-2.png"),
        (web / "scene-3.webp", f"http://127.0.0.1:{web_port}/scene-3.webp"),
        (web / "scene-4.bmp", f"http://127.0.0.1:{web_port}/scene-4.bmp"),
        (bucket / "scene-5.jpg", f"s3://{BUCKET}/scene-5.jpg"),
        (bucket / "scene-6.png", f"s3://{BUCKET}/scene-6.png"),
        (files / "scene-7.jpg", (files / "scene-7.jpg").as_uri()),
        (files / "scene-8.gif", (files / "scene-8.gif").as_uri()),
    ]
    pictures = []
    for n, (path, uri) in enumerate(places):
        scene = scenes.sample(rng, shapes=1 + n % 2)
        scenes.draw(scene, side=480).save(path)
        attribute = ("colour", "order", "kind", "relation", "size", "colour", "background")[n % 7]
        changed = scenes.change(scene, attribute, rng) or scenes.change(scene, "colour", rng)
        assert changed is not None  # noqa: S101 - every scene has a colour
        pictures.append(Picture(uri, scene.caption, changed.caption))
    whole = (web / "scene-1.jpg").read_bytes()
    (web / "damaged.jpg").write_bytes(whole[: len(whole) // 2])
    damaged = f"http://127.0.0.1:{web_port}/damaged.jpg"
    return [*pictures, Picture(damaged, "a picture", expected=ErrorCode.IMAGE_CORRUPT)]


def _own(images: list[str], files: Path) -> list[Picture]:
    """The user's images: URIs as they are, local files by way of the folder workers may read."""
    pictures = []
    for n, image in enumerate(images):
        uri = image
        if "://" not in image:
            copy = files / str(n) / Path(image).name
            try:
                copy.parent.mkdir()
                shutil.copyfile(image, copy)
            except OSError as exc:
                raise SystemExit(f"captionq-worker: cannot read {image}: {exc.strerror}") from None
            uri = copy.as_uri()
        pictures.append(Picture(uri))
    return pictures


def _run_jobs(client: Client, pictures: list[Picture], console: Console) -> list[Shown]:
    """Submit a caption job each, and a match job each: for drawn scenes at once, for the user's
    own images once there is a caption to match."""
    handles: dict[JobHandle, int] = {}
    captions: dict[int, JobResult] = {}
    matches: dict[int, JobResult] = {}
    with console.status("captioning and matching ...") as status:
        for n, picture in enumerate(pictures):
            handles[client.submit(CaptionJob(image=picture.uri))] = n
            if picture.true_text:
                texts = (picture.true_text, picture.false_text)
                handles[client.submit(MatchJob(image=picture.uri, texts=texts))] = n
        while handles:
            waiting, handles = handles, {}
            by_id = {handle.job_id: n for handle, n in waiting.items()}
            for result in client.as_completed(list(waiting), timeout_s=JOBS_TIMEOUT_S):
                n = by_id[result.job_id]
                (captions if result.task == "caption" else matches)[n] = result
                status.update(f"{len(captions)} captioned, {len(matches)} matched ...")
                if result.captions and not pictures[n].true_text:
                    texts = (result.captions[0].text, FALSE_TEXT)
                    handles[client.submit(MatchJob(image=pictures[n].uri, texts=texts))] = n
    return [Shown(picture, captions[n], matches.get(n)) for n, picture in enumerate(pictures)]


def _table(shown: list[Shown]) -> Table:
    table = Table(title="captionq: image in, words out", title_style="bold")
    table.add_column("image", style="cyan", overflow="fold", min_width=17)
    table.add_column("caption, and the false text it was matched against", ratio=1)
    for heading in ("log-prob", "p(true)", "p(false)"):
        table.add_column(heading, justify="right")
    table.add_column("fetch, decode, infer", justify="right")
    table.add_column("batch", justify="right")
    for picture, caption, match in shown:
        scheme, _, path = public_uri(picture.uri).partition("://")
        name = escape(f"{scheme} {unquote(path.rpartition('/')[2] or path)}")
        if caption.captions is None or caption.timings is None:
            reason = (
                f"[red]{caption.error.code}[/red] {caption.error.message}" if caption.error else ""
            )
            table.add_row(name, reason)
            continue
        times, found = caption.timings, caption.captions[0]
        stages = (times.fetch_ms, times.decode_ms, times.infer_ms)
        table.add_row(
            name,
            f"{escape(found.text)}\n[dim]false: {escape(picture.false_text)}[/dim]",
            f"{found.logprob:.2f}",
            *_probabilities(match),
            "  ".join(f"{ms:.0f}" for ms in stages if ms is not None) + " ms",
            str(times.batch_size),
        )
    return table


def _probabilities(match: JobResult | None) -> list[str]:
    """ITM probabilities of the true and of the false text; empty where nothing was matched."""
    if match is None or match.matches is None:
        return ["", ""]
    return [f"{found.itm_probability:.3f}" for found in match.matches]


def _s3_server(folder: Path) -> S3Server:
    try:
        return S3Server(folder)
    except FileNotFoundError as exc:
        raise SystemExit(f"captionq-worker: the demo needs an S3 server: {exc}") from None


@contextmanager
def _http_server(folder: Path) -> Iterator[tuple[Path, int]]:
    """Serve a folder on 127.0.0.1 and a free port; yields the folder and the port."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
            pass

    folder.mkdir()
    handler = partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield folder, server.server_address[1]
        finally:
            server.shutdown()


@contextmanager
def _worker(environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process with these settings, the user's own ones winning where they name a model."""
    models = {"CAPTIONQ_CAPTION_MODEL": BUNDLED, "CAPTIONQ_MATCH_MODEL": BUNDLED}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker.cli", "run"],
            env=models | os.environ | environment,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    watcher = threading.Thread(target=_report_death, args=(process, log), daemon=True)
    watcher.start()
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _report_death(process: subprocess.Popen[bytes], log: Path) -> None:
    """Say why, when the worker ends by itself: jobs would wait for it in vain."""
    if process.wait() not in (0, -signal.SIGTERM):
        print(log.read_text(errors="replace")[-4_000:], file=sys.stderr)
        os.kill(os.getpid(), signal.SIGINT)
