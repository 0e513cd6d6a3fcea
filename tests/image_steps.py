"""What Dockerfiles say is done, without Docker: python -m tests.image_steps [IMAGE...]

Each step of a Dockerfile is run in a root of its own, in which whatever is written lies in memory
(overlayfs), with an empty Python environment in the place of the base image's. Then the image's
command is started as its user, on a read-only tree, with no network but its own loopback and with a
Redis, until the image's own health check is satisfied. A worker has to caption a file of its own;
each has to end in good order when told to.

The root is this machine's, and all packages are installed anew, from the registry (minutes). With
--installed, packages of the environment that runs this count as installed, so that nothing is
downloaded: `make test` does that. With --bare FOLDER the root is a Debian with a Python and nothing
more, as the base image is: what an image needs of Debian and does not install is not there. It is
made in FOLDER by debootstrap, from where apt gets its packages, unless it is there. Linux, as root.
"""

import argparse
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from producer import CaptionJob, Client
from producer.redis_server import RedisServer
from tests.clean_root import (
    CLONE_NEWNS,
    Image,
    bare_root,
    clean_root,
    debootstrap,
    loopback_alone,
    mount,
    read_only,
    unshare,
)
from tests.dockerfiles import (
    ROOT,
    assignments,
    command,
    copied,
    health_command,
    let_through,
    steps_to,
)
from tests.house import PNG

HEALTHY_S = 240
STOP_S = 60
JOB_S = 60
UPLOADS = "/srv/uploads"
IMAGES: dict[str, tuple[str, str | None]] = {
    "worker": ("worker.Dockerfile", None),
    "baked": ("worker.Dockerfile", "baked"),
    "producer": ("producer.Dockerfile", None),
    "flower": ("producer.Dockerfile", "flower"),
}
"""The Dockerfile and target of each image."""

SCENES = ROOT / "worker/checkpoints/scenes"
BUILD_ARGS = {"CAPTION_MODEL": str(SCENES), "MATCH_MODEL": str(SCENES)}
"""In place of the hub, which is not asked."""


def settings_of(image: str, broker_url: str) -> dict[str, str]:
    """What an operator sets for each image."""
    broker = {"CAPTIONQ_BROKER_URL": broker_url}
    small = broker | {
        "CAPTIONQ_MATCH_MODEL": "none",
        "CAPTIONQ_MAX_BATCH": "1",
        "CAPTIONQ_FILE_ROOT": UPLOADS,
    }
    return {
        "worker": small | {"CAPTIONQ_CAPTION_MODEL": "bundled"},
        "baked": small,
        "producer": broker | {"CAPTIONQ_API_KEYS": "/var/lib/captionq/keys.json"},
        "flower": broker | {"FLOWER_BASIC_AUTH": "operator:s3cret"},
    }[image]


ABSENT = dict.fromkeys(("producer", "flower"), ("torch", "transformers", "PIL", "worker"))
"""What an image must not have. Where packages are lent it cannot be told."""

PRESENT = {
    "worker": "import matplotlib.pyplot, opentelemetry.sdk, pillow_heif, pyarrow.parquet",
    "producer": "import lancedb, mcp, opentelemetry.sdk, pyarrow.parquet, watchfiles",
}
"""What is imported when it is wanted, and not before."""

FIRST = {"producer": ["captionq", "keys", "new", "prometheus", "--scope", "read"]}
"""What is run once before an image's command."""


def build(image: Image, dockerfile: Path, target: str | None) -> None:
    """Take a Dockerfile's steps to a target.

    Raises:
        ValueError: a step is not known here.
        subprocess.CalledProcessError: a command failed.
    """
    _, steps = steps_to(dockerfile, target)
    for step in steps:
        print(f"{step.instruction} {step.value[:100]}", flush=True)
        match step.instruction:
            case "WORKDIR":
                image.workdir = step.value
                (image.root / step.value[1:]).mkdir(parents=True, exist_ok=True)
            case "ENV":
                image.environment |= assignments(step.value)
            case "ARG":
                image.arguments |= assignments(step.value) | {
                    name: value
                    for name, value in BUILD_ARGS.items()
                    if name in assignments(step.value)
                }
            case "COPY":
                _copy(image, dockerfile, *copied(step.value))
            case "RUN":
                image.run(["sh", "-c", step.value])
            case "USER":
                image.user = step.value
            case "VOLUME":
                image.volumes.append(step.value)
            case "ENTRYPOINT":
                image.entrypoint = command(step.value)
            case "CMD":
                image.command = command(step.value)
            case "HEALTHCHECK":
                image.health = health_command(step.value)
            case "EXPOSE" | "STOPSIGNAL":
                pass
            case other:
                raise ValueError(f"{dockerfile.name}: {other}: tests/image_steps.py cannot do it")


def _copy(image: Image, dockerfile: Path, sources: list[str], destination: str) -> None:
    folder = image.root / os.path.join(image.workdir, destination)[1:]  # noqa: PTH118
    for source in sources:
        if not let_through(dockerfile, source):
            raise ValueError(f"{dockerfile.name}: its .dockerignore keeps {source} away")
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, folder, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, folder)


def start(name: str, image: Image) -> float:
    """Start an image's command, wait for its health check, and end it; seconds to health.

    Raises:
        RuntimeError: it ended, was not healthy in time, or did not end with status 0.
    """
    with RedisServer() as broker:
        settings = settings_of(name, broker.url) | {"OMP_NUM_THREADS": "1"}
        environment = image.environment | settings
        if name in FIRST:
            image.run(FIRST[name], **settings)
        words = image.words([*image.entrypoint, *image.command])
        began_s = time.monotonic()
        process = subprocess.Popen(words, env=environment)
        try:
            while not _healthy(image, environment):
                if process.poll() is not None or time.monotonic() - began_s > HEALTHY_S:
                    raise RuntimeError(f"{name}: not healthy; its status is {process.poll()}")
                time.sleep(1)  # to ask is a process
            healthy_s = time.monotonic() - began_s
            if "CAPTIONQ_FILE_ROOT" in settings:
                _caption(broker.url)
            process.terminate()
            if status := process.wait(STOP_S):
                raise RuntimeError(f"{name}: told to end, it ended with status {status}")
        finally:
            process.kill()
    return healthy_s


def _caption(broker_url: str) -> None:
    """Have the worker caption a file of its own. Raises JobFailed, or TimeoutError."""
    with Client(broker_url) as client:
        job = client.submit(CaptionJob(image=f"file://{UPLOADS}/scene.png"))
        job.result(JOB_S).raise_for_state()


def _healthy(image: Image, environment: dict[str, str]) -> bool:
    asked = subprocess.run(image.words(image.health), env=environment, capture_output=True)
    return asked.returncode == 0


def main(given: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("images", nargs="*", metavar="IMAGE", help=f"of {', '.join(IMAGES)}")
    roots = parser.add_mutually_exclusive_group()
    roots.add_argument("--installed", action="store_true", help="see above")
    roots.add_argument("--bare", type=Path, metavar="FOLDER", help="see above")
    chosen = parser.parse_args(given)
    if chosen.bare:
        debootstrap(chosen.bare, suite())
    for name in chosen.images or IMAGES:
        base = Path(tempfile.mkdtemp(prefix="captionq-image-"))
        child = multiprocessing.get_context("fork").Process(
            target=try_image, args=(name, base, chosen.installed, chosen.bare)
        )
        child.start()
        child.join()
        base.rmdir()  # empty: what was mounted there went with the process
        if child.exitcode:
            sys.exit(f"{name}: failed")


def suite() -> str:
    """The Debian that images are made from.

    Raises:
        ValueError: they are made from several.
    """
    bases = {steps_to(ROOT / "docker" / dockerfile)[0] for dockerfile, _ in IMAGES.values()}
    (debian,) = {base.rpartition("-")[2] for base in bases}
    return debian


def try_image(name: str, base: Path, installed: bool, bare: Path | None = None) -> None:
    """All of it for one image, in a process of its own: with it end its mounts and its network."""
    began_s = time.monotonic()
    unshare(CLONE_NEWNS)
    mount("--make-rprivate", "/")
    image = bare_root(base, bare, [SCENES]) if bare else clean_root(base, installed)
    dockerfile, target = IMAGES[name]
    build(image, ROOT / "docker" / dockerfile, target)
    if not installed:
        absent = f"there = [name for name in {ABSENT.get(name, ())} if find_spec(name)]"
        told = f"from importlib.util import find_spec; {absent}; assert not there, there"
        image.run(["python", "-c", f"{told}; {PRESENT.get(name, '')}"])
    built_s = time.monotonic() - began_s
    (image.root / UPLOADS[1:] / "scene.png").write_bytes(PNG)
    read_only(image)
    loopback_alone()
    healthy_s = start(name, image)
    print(f"{name}: built in {built_s:.0f} s, healthy after {healthy_s:.1f} s", flush=True)


if __name__ == "__main__":
    main()
