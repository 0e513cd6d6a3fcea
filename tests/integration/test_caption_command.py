"""`captionq caption` as people run it: a process, a real Redis, a worker that answers at once."""

import contextlib
import csv
import json
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from producer import Client
from producer.embedded import RedisServer
from tests.fork_server import COMMANDS, ForkedProcess, captionq, fork_server
from tests.full import FULL
from tests.stand_in_worker import messages
from worker.embedded_s3 import S3Server

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 60
MEGABYTE = 1_048_576


@dataclass
class Desk:
    """A shell in a folder, a broker, and workers that answer each chunk after `pause_s`."""

    url: str
    folder: Path
    command: str = "caption"
    pause_s: float = 0.0
    environment: dict[str, str] = field(default_factory=dict)
    workers: list[ForkedProcess] = field(default_factory=list)

    def environ(self) -> dict[str, str]:
        own = {
            "CAPTIONQ_BROKER_URL": self.url,
            "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
        }
        return os.environ | own | self.environment

    def work(self) -> None:
        command = ("tests.chunk_worker", self.url, str(self.pause_s))
        self.workers.append(fork_server(*COMMANDS).start(*command, env=self.environ()))

    def start(self, *words: str, **options: Any) -> ForkedProcess:
        return fork_server(*COMMANDS).start(
            "producer.cli", self.command, *words, cwd=self.folder, env=self.environ(),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
        )  # fmt: skip

    def start_fresh(self, *words: str) -> "subprocess.Popen[str]":
        """With all its imports yet to be made: its memory is its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "producer.cli", self.command, *words],
            cwd=self.folder, env=self.environ(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *words: str, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
        return captionq(self.command, *words, stdin=stdin, cwd=self.folder, env=self.environ())

    def stop(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()
        self.workers.clear()


@pytest.fixture
def desk(redis_server: RedisServer, tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(redis_server.url, tmp_path)
    yield desk
    desk.stop()


def uri(number: int) -> str:
    return f"https://images.example.com/{number // 1000:05}/{'x' * 30}-{number:08}.jpg"


def parquet(path: Path, count: int) -> Path:
    pyarrow.parquet.write_table(
        pyarrow.table({"id": range(count), "url": [uri(n) for n in range(count)]}),
        path,
        row_group_size=20_000,
    )
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    if path.is_dir():
        read: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
        return read
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return [row | {"index": int(row["index"])} for row in csv.DictReader(file)]
    return [json.loads(line) for line in path.read_text().splitlines()]


def whole(path: Path) -> bool:
    """Whether an output can be read to its end, by who knows nothing of its journal."""
    if path.is_dir():
        return all(pyarrow.parquet.read_metadata(part) for part in path.glob("*.parquet"))
    text = path.read_bytes() if path.exists() else b""
    rows(path) if text else []
    return not text or text.endswith(b"\n")


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.parquet"])
def test_given_a_table_then_each_row_comes_out_once_and_the_summary_tells_failures(
    desk: Desk, name: str
) -> None:
    desk.work()
    lines = ["id,picture", f"0,{uri(0)}", "1,", "2,https://a.example/bad.jpg", "3,nowhere.jpg"]
    (desk.folder / "in.csv").write_text("\n".join(lines) + "\n")

    done = desk.run("in.csv", "--column", "picture", "-o", name, "--ordered")

    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    summary = done.stderr.splitlines()
    assert summary[0].startswith("4 images: 1 succeeded, 3 failed; ")
    assert [line.split()[:2] for line in summary[1:]] == [["job_invalid", "2"], ["http_4xx", "1"]]
    found = rows(desk.folder / name)
    assert [row["index"] for row in found] == [0, 1, 2, 3]
    assert [row["code"] or None for row in found] == [
        None,
        "job_invalid",
        "http_4xx",
        "job_invalid",
    ]
    assert [row["source"] for row in found] == [f"in.csv:{n}" for n in (2, 3, 4, 5)]
    assert found[0]["caption"] == f"a picture of {uri(0)}"
    assert float(found[0]["score"]) == -0.5


def test_given_no_output_file_then_rows_are_lines_on_stdout(desk: Desk) -> None:
    desk.work()

    done = desk.run("-", "--json", stdin=f"# two\n{uri(1)}\n\n{uri(2)}\n")

    assert done.returncode == 0, done.stderr
    assert sorted(json.loads(line)["image"] for line in done.stdout.splitlines()) == [
        uri(1),
        uri(2),
    ]
    summary = json.loads(done.stderr)
    assert (summary["images"], summary["succeeded"], summary["errors"]) == (2, 2, {})
    assert list(desk.folder.iterdir()) == []


@pytest.mark.parametrize("words", [(), ("-o", "out.jsonl")])
def test_given_a_terminal_then_rows_have_lines_of_their_own_and_else_there_is_a_bar(
    desk: Desk, words: tuple[str, ...]
) -> None:
    desk.pause_s = 0.5
    desk.work()
    terminal, other = os.openpty()
    command = [sys.executable, "-m", "producer.cli", "caption", *(uri(n) for n in range(4)), *words]
    process = subprocess.Popen(
        [*command, "--chunk", "1", "--in-flight", "1"], cwd=desk.folder,
        env=desk.environ() | {"TERM": "xterm"}, stdin=other, stdout=other, stderr=other,
    )  # fmt: skip
    os.close(other)
    shown = b""
    with contextlib.suppress(OSError):  # it has ended
        while block := os.read(terminal, 65_536):
            shown += block
    os.close(terminal)

    assert process.wait(TIMEOUT_S) == 0
    lines = shown.decode().splitlines()
    begun = [line for line in lines if '{"index"' in line]
    assert len(begun) == (0 if words else 4)
    assert all(line.startswith('{"index"') for line in begun)
    assert bool(re.search(r"chunks? in flight", shown.decode())) == bool(words)


def test_given_a_folder_then_texts_lie_beside_its_images(desk: Desk) -> None:
    desk.work()
    folder = desk.folder / "photos" / "2026"
    folder.mkdir(parents=True)
    for name in ("a.jpg", "b.png", "bad.webp"):
        (folder / name).touch()

    done = desk.run("photos", "--beside", "--quiet")

    assert done.returncode == 1
    assert done.stderr == (
        "captionq: photos/2026/bad.webp: http_4xx: The image host refused the request (4xx).\n"
    )
    assert (folder / "a.txt").read_text() == f"a picture of {(folder / 'a.jpg').as_uri()}\n"
    again = desk.run("photos", "--beside", "--skip-existing", "--json")
    assert json.loads(again.stdout)["skipped"] == 2


def test_given_options_then_they_reach_the_chunks(desk: Desk) -> None:
    import redis

    process = desk.start(
        uri(0), uri(1), uri(2), "--chunk", "2", "--beams", "5", "--prompt", "a photo of",
        "--mode", "pad", "--model", "org/blip", "--sink", "s3://results/run/", "--lane", "bulk",
    )  # fmt: skip
    with redis.Redis.from_url(desk.url) as broker, Client(desk.url) as client:
        queues: list[bytes] = []
        while not queues:
            time.sleep(0.02)
            queues = broker.keys("captionq.caption.org-blip*")
        sent = messages(broker, queues[0].decode())
        record = client.status(sent[0]["headers"]["id"])
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=TIMEOUT_S)

    assert len(sent) == 2
    assert record is not None
    job = json.loads(str(record.job))
    assert job["images"] == [uri(0), uri(1)]
    assert (job["lane"], job["sink"], job["mode"]) == ("bulk", "s3://results/run/", "pad")
    assert (job["options"]["num_beams"], job["options"]["prompt"]) == (5, "a photo of")
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("nowhere/",), 2, "There is no file, folder or match 'nowhere/'"),
        (("in.csv",), 2, "in.csv has no column named image or url: say with --column which of its"),
        (("list.txt", "-o", "out.xls"), 2, "the output is one of .jsonl, .ndjson, .csv, .parquet"),
        (("list.txt", "--resume"), 2, "Only a run with -o or --beside can be resumed"),
        (("list.txt", "--seed", "3"), 2, "seed needs do_sample"),
        (("list.txt", "--sink", "s3://bucket"), 2, "a sink is a folder"),
        (("list.txt", "-o", "there.jsonl"), 2, "there.jsonl is there: --resume goes on with it"),
        (("s3://bucket/none/", "-o", "out.csv"), 2, "s3://bucket/none/ could not be listed"),
    ],
)
def test_given_wrong_usage_then_one_sentence_says_what_and_nothing_is_sent(
    desk: Desk, words: tuple[str, ...], code: int, sentence: str
) -> None:
    (desk.folder / "in.csv").write_text("id,text\n1,a\n")
    (desk.folder / "list.txt").write_text(f"{uri(0)}\n")
    (desk.folder / "there.jsonl").write_text("{}\n")
    desk.environment = {"CAPTIONQ_S3_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_MAX_ATTEMPTS": "1"}
    desk.environment |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}

    done = desk.run(*words)

    assert done.returncode == code
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_given_no_broker_then_the_run_ends_at_once(desk: Desk) -> None:
    desk.url = "redis://127.0.0.1:1/0"
    desk.environment = {"CAPTIONQ_SUBMIT_TIMEOUT_S": "1"}

    done = desk.run(uri(0), "-o", "out.csv")

    assert done.returncode == 3
    assert "cannot be reached" in done.stderr
    assert "Continue with: " in done.stderr


def interrupted(
    desk: Desk, words: tuple[str, ...], output: Path, how: signal.Signals, done_bytes: int
) -> "subprocess.CompletedProcess[str]":
    """Run until the journal has so many bytes, and then send a signal; or to the end."""
    process = desk.start(*words)
    journal = output.with_name(f"{output.name}.journal")
    while process.poll() is None:
        if journal.exists() and journal.stat().st_size >= done_bytes:
            process.send_signal(how)
            break
        time.sleep(0.002)
    out, err = process.communicate(timeout=TIMEOUT_S)
    return subprocess.CompletedProcess(process.args, process.wait(), out, err)


@pytest.mark.parametrize(("name", "seed"), [("out.jsonl", 1), ("out.csv", 2), ("out.parquet", 3)])
def test_given_a_run_interrupted_and_killed_then_resumed_each_image_has_exactly_one_row(
    desk: Desk, name: str, seed: int
) -> None:
    count, rng = 5_000, random.Random(seed)
    source, output = parquet(desk.folder / "in.parquet", count), desk.folder / name
    desk.pause_s = 0.01
    desk.work()
    words = (source.name, "-o", name, "--resume", "--in-flight", "8", "--json")
    codes = []
    for how in rng.sample([signal.SIGINT, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL], 4):
        journal = output.with_name(f"{name}.journal")
        size = journal.stat().st_size if journal.exists() else 0
        done = interrupted(desk, words, output, how, size + rng.randint(1, 2_000))
        codes.append(done.returncode)
        if done.returncode == 130:
            assert "captionq: interrupted" in done.stderr
            assert "Continue with: cli.py caption in.parquet" in done.stderr
        if how is not signal.SIGKILL:
            assert whole(output)
        if rng.random() < 0.5:  # the worker is lost as well, with what it had taken
            desk.stop()
            desk.work()
    done = desk.run(*words)

    assert done.returncode == 0, done.stderr
    assert {-signal.SIGKILL, 130} & set(codes)
    assert Counter(row["index"] for row in rows(output)) == Counter(range(count))
    assert all(row["caption"] == f"a picture of {uri(int(row['index']))}" for row in rows(output))
    assert json.loads(done.stdout)["succeeded"] == count


def test_given_an_interrupted_run_then_the_command_it_prints_goes_on_with_it(desk: Desk) -> None:
    parquet(desk.folder / "in.parquet", 2_000)
    desk.pause_s = 0.01
    desk.work()
    words = ("in.parquet", "-o", "a b.jsonl", "--overwrite", "--in-flight", "4")
    output = desk.folder / "a b.jsonl"
    (desk.folder / "a b.jsonl").write_text("of another day\n")

    first = interrupted(desk, words, output, signal.SIGTERM, 1_500)

    (line,) = [line for line in first.stderr.splitlines() if line.startswith("Continue with: ")]
    command = shlex.split(line.removeprefix("Continue with: "))
    assert first.returncode == 130
    assert command == [
        "cli.py",
        "caption",
        "in.parquet",
        "-o",
        "a b.jsonl",
        "--in-flight",
        "4",
        "--resume",
    ]
    second = desk.run(*command[2:])
    assert second.returncode == 0, second.stderr
    assert sorted(row["index"] for row in rows(output)) == list(range(2_000))


def test_given_a_broker_that_is_killed_and_comes_back_then_the_run_goes_on(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        desk = Desk(server.url, tmp_path, pause_s=0.01)
        desk.environment = {"CAPTIONQ_SUBMIT_TIMEOUT_S": "1"}
        parquet(tmp_path / "in.parquet", 4_000)
        desk.work()
        process = desk.start("in.parquet", "-o", "out.jsonl", "--in-flight", "4")
        journal = tmp_path / "out.jsonl.journal"
        while not journal.exists() or journal.stat().st_size < 1_500:
            time.sleep(0.01)
        desk.stop()
        server.kill()
        time.sleep(1.5)  # longer than one submission tries
        server.start()
        desk.work()
        _, err = process.communicate(timeout=TIMEOUT_S)
        desk.stop()

    assert process.returncode == 0, err
    assert "cannot be reached" in err
    assert "Back after" in err
    assert sorted(row["index"] for row in rows(tmp_path / "out.jsonl")) == list(range(4_000))


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            "out.jsonl", marks=pytest.mark.skipif(not FULL, reason="written by make test FULL=1")
        ),
        "out.parquet",
    ],
)
def test_given_100_000_references_then_memory_is_flat_and_under_200_megabytes(
    desk: Desk, name: str
) -> None:
    # pyarrow loads pandas where it is, 50 MB of it; the command is installed without.
    absent = desk.folder / "absent"
    absent.mkdir()
    (absent / "pandas.py").write_text('raise ImportError("as if it were not installed")\n')
    desk.environment = {"PYTHONPATH": f"{absent}:{desk.environ()['PYTHONPATH']}"}
    count = 100_000
    parquet(desk.folder / "in.parquet", count)
    desk.work()
    journal = desk.folder / f"{name}.journal"
    early = late = 0
    process = desk.start_fresh("in.parquet", "-o", name, "--quiet")
    expected = 70 * count // 64  # bytes of a journal with a line for each chunk sent
    while process.poll() is None:
        size = journal.stat().st_size if journal.exists() else 0
        used = resident(process.pid)
        if expected // 5 < size < 2 * expected // 5:
            early = max(early, used)
        late = max(late, used)
        time.sleep(0.02)
    process.communicate()

    assert process.returncode == 0
    assert len(rows(desk.folder / name)) == count
    assert early > 0
    assert late < 200 * MEGABYTE
    assert late - early < 20 * MEGABYTE


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """The folder of s3://photos, and how to reach it."""
    folder = tmp_path / "s3" / "photos"
    folder.mkdir(parents=True)
    with S3Server(tmp_path / "s3") as server:
        environment = {
            "CAPTIONQ_S3_ENDPOINT_URL": server.endpoint_url,
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        yield folder, environment


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("s3://photos", 1_202),
        ("s3://photos/", 1_202),
        ("s3://photos/2026/", 1_201),
        ("s3://photos/2026/a%20b/", 1),
    ],
)
def test_given_a_bucket_then_its_images_are_listed_page_by_page(
    desk: Desk, bucket: tuple[Path, dict[str, str]], prefix: str, expected: int
) -> None:
    folder, desk.environment = bucket
    (folder / "2026" / "a b").mkdir(parents=True)
    for name in (
        "top.jpg",
        "notes.txt",
        "2026/a b/ä+.png",
        *(f"2026/{n}.jpg" for n in range(1_200)),
    ):
        (folder / name).write_bytes(b"1")
    desk.work()

    done = desk.run(prefix, "-o", "out.jsonl", "--json")

    assert done.returncode == 0, done.stderr
    found = [row["image"] for row in rows(desk.folder / "out.jsonl")]
    assert len(found) == len(set(found)) == expected
    assert "s3://photos/2026/a%20b/%C3%A4%2B.png" in found


def test_given_a_place_for_uploads_then_local_files_are_copied_there(
    desk: Desk, bucket: tuple[Path, dict[str, str]]
) -> None:
    folder, desk.environment = bucket
    desk.environment |= {"CAPTIONQ_UPLOAD_URL": "s3://photos/uploads"}
    (desk.folder / "mine").mkdir()
    for n in range(100):
        (desk.folder / "mine" / f"{n:02}.jpg").write_bytes(str(n % 50).encode())
    desk.work()

    done = desk.run("mine", uri(0), "-o", "out.jsonl", "--ordered", "--json")

    assert done.returncode == 0, done.stderr
    found = rows(desk.folder / "out.jsonl")
    assert [row["image"] for row in found] == [*(f"mine/{n:02}.jpg" for n in range(100)), uri(0)]
    assert found[0]["caption"].startswith("a picture of s3://photos/uploads/")
    assert found[0]["caption"] == found[50]["caption"]  # the same bytes, the same object
    assert len(list((folder / "uploads").iterdir())) == 50


def test_given_a_place_for_uploads_that_never_answers_then_an_interrupted_run_ends_soon(
    desk: Desk,
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        desk.environment = {
            "CAPTIONQ_S3_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "CAPTIONQ_UPLOAD_URL": "s3://photos/uploads",
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        (desk.folder / "a.jpg").write_bytes(b"1")
        process = desk.start("a.jpg", "-o", "out.jsonl")
        silent.settimeout(TIMEOUT_S)
        connection, _ = silent.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=10)

    assert process.returncode == 130
    assert "captionq: interrupted" in err


def test_help_teaches_by_examples(desk: Desk) -> None:
    done = desk.run("--help")

    assert done.returncode == 0
    for word in ("s3://photos/2026/", "--skip-existing", "--resume", "130 interrupted"):
        assert word in done.stdout
