"""How fast one `captionq caption` is, and what it takes: python -m tests.manifest_rate [COUNT]

A Parquet file of so many references of 80 characters (100,000), a Redis that sees every write to
the disk, and a worker that answers chunks at once (tests/chunk_worker.py), which has the other
core. Then the same without a worker, until 1,000 chunks are in flight: what a reference takes in
Redis.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import redis

from producer.embedded import RedisServer

IN_FLIGHT = 1_000
CHUNK = 64


def uri(number: int) -> str:
    return f"https://images.example.com/{number // 1000:05}/{'x' * 34}-{number:08}.jpg"


def table(path: Path, count: int) -> Path:
    assert len(uri(0)) == 80
    urls = pyarrow.array([uri(number) for number in range(count)])
    pyarrow.parquet.write_table(pyarrow.table({"url": urls}), path, row_group_size=20_000)
    return path


def caption(url: str, source: Path, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "producer.cli", "caption", str(source), "--json", *words]
    environment = os.environ | {"CAPTIONQ_BROKER_URL": url}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def rate(folder: Path, count: int, suffix: str) -> dict[str, Any]:
    """References a second, and the most memory of the process in MB."""
    with RedisServer(folder / "redis") as server:
        worker = subprocess.Popen([sys.executable, "-m", "tests.chunk_worker", server.url])
        source = table(folder / "in.parquet", count)
        began_s = time.monotonic()
        output = folder / f"out{suffix}"
        process = caption(server.url, source, "-o", str(output), "--overwrite", "--quiet")
        assert process.stdout is not None
        summary = json.loads(process.stdout.read())
        _, status, used = os.wait4(process.pid, 0)
        worker.kill()
        worker.wait()
    assert status == 0
    return {
        "output": suffix,
        "references": summary["succeeded"],
        "references_per_s": summary["per_s"],
        "with_start_s": round(time.monotonic() - began_s, 1),
        "cpu_us_per_reference": round(1e6 * (used.ru_utime + used.ru_stime) / count, 1),
        "peak_mb": round(used.ru_maxrss / 1024),
    }


def memory(folder: Path) -> dict[str, Any]:
    """Bytes of Redis for each reference that is in flight."""
    source = table(folder / "in.parquet", 2 * IN_FLIGHT * CHUNK)
    with RedisServer(folder / "redis") as server, redis.Redis.from_url(server.url) as broker:
        empty = broker.info("memory")["used_memory"]
        process = caption(server.url, source, "--in-flight", str(IN_FLIGHT), "--quiet")
        while broker.llen("captionq.caption.bulk") < IN_FLIGHT:
            time.sleep(0.1)
        used = broker.info("memory")["used_memory"] - empty
        process.send_signal(signal.SIGINT)
        process.communicate()
    return {"in_flight": IN_FLIGHT, "redis_bytes_per_reference": round(used / IN_FLIGHT / CHUNK, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=100_000)
    count = parser.parse_args().count
    for suffix in (".jsonl", ".csv", ".parquet"):
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(rate(Path(folder), count, suffix)))
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(memory(Path(folder))))


if __name__ == "__main__":
    main()
