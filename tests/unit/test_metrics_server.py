"""What is told at a scrape also when something is amiss: who asks hangs up, the device is lost."""

import logging
import socket
import struct
import time
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from worker.metrics.held import Held
from worker.metrics.server import MetricsServer


@pytest.mark.parametrize("path", ["/metrics", "/healthz"])
def test_given_somebody_who_hangs_up_nothing_is_written_but_to_whoever_debugs(
    path: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    registry = CollectorRegistry()
    for number in range(1_000):
        Gauge(f"n{number}", "x" * 200, registry=registry).set(1)
    slow = lambda: time.sleep(0.2) or []  # type: ignore[func-returns-value] # noqa: E731
    server = MetricsServer("127.0.0.1", 0, registry, slow)
    try:
        with caplog.at_level(logging.DEBUG):
            with socket.create_connection(("127.0.0.1", server.port)) as asking:
                asking.sendall(f"GET {path} HTTP/1.1\r\n\r\n".encode())
                reset = struct.pack("ii", 1, 0)
                asking.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            end_s = time.monotonic() + 10
            while not caplog.records:
                assert time.monotonic() < end_s
                time.sleep(0.02)
    finally:
        server.close()
    assert [one.levelname for one in caplog.records] == ["DEBUG"]
    assert capfd.readouterr().err == ""


def test_given_a_device_that_says_nothing_of_itself_all_else_is_told() -> None:
    def lost() -> Any:
        raise RuntimeError("CUDA error: unspecified launch failure")

    registry = CollectorRegistry()
    registry.register(
        Held(
            batcher=SimpleNamespace(
                device_lives=False, running_s=lambda: 31.0, max_batch=8, waiting=lambda _: 0
            ),
            leases=SimpleNamespace(held=lambda: 0, lost=0, queued_again=0),
            health=SimpleNamespace(faults=lambda: ["lost"], hub_silent_s=lambda: 0.0),
            models={},
            device="cuda:0",
            use=lost,
        )  # type: ignore[arg-type]
    )
    text = generate_latest(registry).decode()
    assert "captionq_device_thread_up 0.0" in text
    assert "captionq_device_memory_bytes{" not in text
