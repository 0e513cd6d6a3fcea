"""`captionq embed`, `match`, `rank` and `validate` as people run them: a process, a real Redis, a
worker that answers at once."""

import json
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import redis

from producer.contract import ErrorCode, Job, JobError, JobFailed, JobResult, JobState
from tests.full import often
from tests.integration.test_caption_command import (
    MEGABYTE,
    Desk,
    bucket,
    desk,
    interrupted,
    parquet,
    resident,
    rows,
    uri,
)
from tests.stand_in_model import cosine, embedding, match, vector
from tests.stand_in_worker import StandInWorker, succeeded

__all__ = ["bucket", "desk"]

TEXT = "a red thing"
BAD = "https://a.example/bad.jpg"


def pairs(path: Path, count: int, each: int = 5) -> list[dict[str, str]]:
    """A Parquet table of so many pairs, of which so many that follow each other have one image."""
    table = [{"URL": uri(n // each), "TEXT": f"thing {n}"} for n in range(count)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), path)
    return table


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.parquet"])
@pytest.mark.parametrize("encoding", ["list", "float32", "float16"])
def test_given_images_then_each_has_its_embedding_as_asked(
    desk: Desk, name: str, encoding: Any
) -> None:
    desk.command = "embed"
    desk.work()

    done = desk.run(uri(0), BAD, uri(1), "-o", name, "--encoding", encoding, "--ordered")

    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("3 images: 2 succeeded, 1 failed")
    found = rows(desk.folder / name)
    assert [row["code"] or None for row in found] == [None, "http_4xx", None]
    for row, image in ((found[0], uri(0)), (found[2], uri(1))):
        assert (row["model"], row["revision"], row["encoding"]) == ("stand-in", "1", encoding)
        if encoding == "list":
            values = json.loads(row["embedding"]) if name.endswith("csv") else row["embedding"]
            assert values == pytest.approx(vector(image), abs=1e-7)
        else:
            assert row["embedding"] == embedding(image, encoding).base64


def test_given_texts_then_each_has_its_embedding_in_their_order(desk: Desk) -> None:
    desk.command = "embed"
    desk.work()
    texts = [f"{'x' * 1_900} {number}" for number in range(40)]  # more than one job may have
    words = [word for text in texts for word in ("--text", text)]

    done = desk.run(*words, "--encoding", "float32")

    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["text"] for row in found] == texts
    assert [row["index"] for row in found] == list(range(40))
    assert [row["embedding"] for row in found] == [
        embedding(one, "float32").base64 for one in texts
    ]
    assert len({row["job_id"] for row in found}) > 1


def test_given_texts_and_a_file_that_is_there_then_it_is_not_replaced_unasked(desk: Desk) -> None:
    desk.command = "embed"
    desk.work()
    (desk.folder / "out.csv").write_text("mine\n")

    refused = desk.run("--text", "a", "-o", "out.csv")
    replaced = desk.run("--text", "a", "-o", "out.csv", "--overwrite")

    assert refused.returncode == 2
    assert "out.csv is there: --overwrite starts anew." in refused.stderr
    assert replaced.returncode == 0, replaced.stderr
    assert [row["text"] for row in rows(desk.folder / "out.csv")] == ["a"]


def test_given_texts_and_images_then_each_row_has_the_best_text_and_all(desk: Desk) -> None:
    desk.command = "match"
    desk.work()

    done = desk.run(uri(0), BAD, "--text", "a cat", "--text", "a dog", "-o", "out.jsonl")

    assert done.returncode == 1, done.stderr
    first, bad = sorted(rows(desk.folder / "out.jsonl"), key=lambda row: int(row["index"]))
    best, other = sorted(("a cat", "a dog"), key=lambda text: -match(uri(0), text).score)
    assert first["text"] == best
    assert [one["text"] for one in first["matches"]] == [best, other]
    assert first["matches"][1]["itm_probability"] == match(uri(0), other).itm_probability
    assert (bad["code"], bad["matches"]) == ("http_4xx", [])


def test_given_a_kind_of_run_then_another_kind_does_not_go_on_with_it(desk: Desk) -> None:
    desk.command = "embed"
    desk.work()
    desk.run(uri(0), "-o", "out.jsonl")
    desk.command = "match"

    done = desk.run(uri(0), "--text", "a", "-o", "out.jsonl", "--resume")

    assert done.returncode == 2
    assert "The run began with other options (" in done.stderr


def test_given_images_then_the_best_are_printed_with_their_scores(desk: Desk) -> None:
    desk.command = "rank"
    desk.work()
    images = [uri(number) for number in range(150)]
    (desk.folder / "urls.txt").write_text("\n".join([*images, BAD, "nowhere.jpg"]))

    done = desk.run(TEXT, "urls.txt", "-k", "5")
    as_json = desk.run(TEXT, "urls.txt", "-k", "5", "--json")

    shortlist = sorted(images, key=lambda one: -cosine(one, TEXT))[:5]
    best = sorted(shortlist, key=lambda one: -match(one, TEXT).score)
    assert done.returncode == as_json.returncode == 1
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["score", "itm", "itc", "image"]
    assert [line.split()[-1] for line in lines] == best
    assert float(lines[0].split()[1]) == pytest.approx(match(best[0], TEXT).score, abs=1e-3)
    assert done.stderr.startswith("152 images: 150 succeeded, 2 failed")
    assert "http_4xx" in done.stderr
    document = json.loads(as_json.stdout)
    assert [one["image"] for one in document["best"]] == best
    assert document["errors"] == {"http_4xx": 1, "job_invalid": 1}
    assert (document["model"], document["revision"]) == ("stand-in", "1")


def test_given_tens_of_thousands_of_images_then_ranking_them_takes_flat_memory(desk: Desk) -> None:
    count = often(100_000, 60_000)
    parquet(desk.folder / "in.parquet", count)
    desk.command = "rank"
    desk.pause_s = 0.0
    desk.work()
    process = desk.start_fresh(TEXT, "in.parquet", "-k", "64", "--json")
    samples: list[int] = []
    while process.poll() is None:
        samples.append(resident(process.pid))
        time.sleep(0.1)
    out, err = process.communicate()

    assert process.returncode == 0, err
    document = json.loads(out)
    assert (document["succeeded"], len(document["best"])) == (count, 64)
    middle = max(samples[len(samples) // 3 : len(samples) // 2])
    assert max(samples) < 200 * MEGABYTE
    assert max(samples) - middle < count / 100_000 * 20 * MEGABYTE


def report(desk: Desk, *words: str) -> Any:
    done = desk.run(*words, "--json")
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("scores", ["jsonl", "csv", "parquet"])
def test_given_pairs_then_their_scores_and_a_report_are_there(desk: Desk, scores: str) -> None:
    desk.command = "validate"
    desk.work()
    lines = [f"{uri(n // 2)},thing {n}" for n in range(300)]
    lines += [f"{BAD},a", f"{uri(0)},", "nowhere.jpg,a"]
    (desk.folder / "pairs.csv").write_text("\n".join(["image,caption", *lines]) + "\n")

    done = desk.run("pairs.csv", "-o", "report", "--scores", scores, "--min-itm", "0.3")
    again = report(desk, "pairs.csv", "-o", "report", "--scores", scores, "--resume")

    assert done.returncode == 1, done.stderr
    probabilities = [match(uri(n // 2), f"thing {n}").itm_probability for n in range(300)]
    below = sum(one < 0.3 for one in probabilities)
    told = done.stderr.splitlines()
    assert told[0].startswith("303 pairs: 300 succeeded, 3 failed; ")
    assert told[3].startswith(f"{below:,} of 300 ({below / 300:.1%}) below 0.3")
    found = rows(desk.folder / f"report/scores.{scores}")
    assert sorted(row["index"] for row in found) == list(range(303))
    for row in found:
        if row["index"] < 300:
            assert float(row["itm_probability"]) == probabilities[row["index"]]
            assert row["caption"] == f"thing {row['index']}"
    codes = Counter(row["code"] for row in found if row["code"])
    assert codes == {"http_4xx": 1, "job_invalid": 2}
    assert (desk.folder / "report/histogram.png").read_bytes().startswith(b"\x89PNG")
    page = (desk.folder / "report/worst.html").read_text()
    assert page.count("<li>") == 50
    worst = min(range(300), key=lambda n: probabilities[n])
    assert f"thing {worst}<" in page
    assert again["min_itm"] == 0.5  # of the scores that were there
    assert again["below"] == sum(one < 0.5 for one in probabilities)
    saved = json.loads((desk.folder / "report/summary.json").read_text())
    assert saved["below"] == again["below"]
    assert saved["pairs"] == 303


def test_given_a_validation_interrupted_and_killed_then_resumed_each_pair_has_one_row(
    desk: Desk,
) -> None:
    count, rng = 5_000, random.Random(4)
    table = pairs(desk.folder / "in.parquet", count)
    desk.command = "validate"
    desk.pause_s = 0.005
    desk.work()
    output = desk.folder / "report/scores.jsonl"
    words = ("in.parquet", "-o", "report", "--resume", "--in-flight", "8")
    codes = []
    for how in (signal.SIGINT, signal.SIGKILL, signal.SIGTERM):
        journal = output.with_name("scores.jsonl.journal")
        size = journal.stat().st_size if journal.exists() else 0
        done = interrupted(desk, words, output, how, size + rng.randint(500, 2_000))
        codes.append(done.returncode)
        assert not (desk.folder / "report/worst.html").exists()

    finished = report(desk, *words)

    assert {130, -signal.SIGKILL} == set(codes)
    assert (finished["pairs"], finished["scored"]) == (count, count)
    found = rows(output)
    assert Counter(row["index"] for row in found) == Counter(range(count))
    assert all(row["caption"] == table[row["index"]]["TEXT"] for row in found)


def test_given_captions_that_changed_then_resuming_is_refused(desk: Desk) -> None:
    desk.command = "validate"
    pairs(desk.folder / "in.parquet", 2_000)
    desk.work()
    desk.pause_s = 0.01
    words = ("in.parquet", "-o", "report", "--in-flight", "4")
    interrupted(desk, words, desk.folder / "report/scores.jsonl", signal.SIGTERM, 1_000)
    (desk.folder / "in.parquet").unlink()
    table = [{"URL": uri(n // 5), "TEXT": f"thinG {n}"} for n in range(2_000)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), desk.folder / "in.parquet")

    done = desk.run(*words, "--resume")

    assert done.returncode == 2
    assert "has changed since the run began" in done.stderr


@pytest.mark.parametrize(
    ("command", "words", "sentence"),
    [
        ("embed", (), "Name images, or texts with --text: one of the two."),
        ("embed", ("--text", "a", uri(0)), "Name images, or texts with --text: one of the two."),
        ("embed", ("--text", ""), "texts.0: String should have at least 1 character"),
        ("embed", ("--text", "a", "-o", "x.xls"), "the output is one of .jsonl"),
        ("match", (uri(0),), "Missing option '--text'"),
        ("rank", (TEXT,), "Missing argument 'SOURCE...'"),
        ("rank", ("x" * 2_001, uri(0)), "texts.0: String should have at most 2000 characters"),
        ("rank", (TEXT, "nowhere/"), "There is no file, folder or match 'nowhere/'"),
        ("validate", ("pairs.csv",), "Missing option '--output'"),
        ("validate", ("list.txt", "-o", "r"), "Pairs are read from tables"),
        ("validate", ("pairs.csv", "-o", "r"), "no column named caption or text: say with --cap"),
        ("validate", ("pairs.csv", "-o", "list.txt"), "is a file"),
    ],
)
def test_given_wrong_usage_then_one_sentence_says_what_and_nothing_is_sent(
    desk: Desk, command: str, words: tuple[str, ...], sentence: str
) -> None:
    desk.command = command
    desk.environment = {"COLUMNS": "200"}
    (desk.folder / "pairs.csv").write_text("url,b\n1,2\n")
    (desk.folder / "list.txt").write_text(f"{uri(0)}\n")

    done = desk.run(*words)

    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_given_a_ranking_that_is_interrupted_then_it_says_so_and_ends_at_once(desk: Desk) -> None:
    desk.command = "rank"
    process = desk.start(TEXT, uri(0))
    with redis.Redis.from_url(desk.url) as broker:
        while not broker.llen("captionq.match"):  # no worker takes the text
            time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)

    assert process.returncode == 130
    assert out == ""
    assert err.endswith("captionq: interrupted.\n")


def test_given_workers_that_cannot_match_then_a_ranking_fails_with_one_sentence(
    desk: Desk,
) -> None:
    def lacking(job: Job) -> JobResult:
        error = JobError.of(JobFailed(ErrorCode.MODEL_LACKS_MATCHING))
        update = {"state": JobState.FAILED, "error": error, "embeddings": None}
        return succeeded(job).model_copy(update=update)

    desk.command = "rank"
    with StandInWorker(desk.url, lacking):
        done = desk.run(TEXT, uri(0))

    assert done.returncode == 1
    assert done.stderr.startswith("captionq: the text could not be embedded: model_lacks_matching")
