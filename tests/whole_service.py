"""The whole service of docs/operations.md, asked from outside whether all of it runs."""

import base64
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import httpx

from tests import systemctl

WATCH_S = 60

RUN = {
    "captionq-worker@0.service": "http://127.0.0.1:9460/healthz",
    "captionq-worker@1.service": "http://127.0.0.1:9461/healthz",
    "captionq-gateway.service": "http://127.0.0.1:8000/healthz",
    "captionq-flower.service": "http://127.0.0.1:5555/healthcheck",
}
"""Units that serve, and where each says that it is healthy."""

UP = 'up{{job="captionq-{}"}}'
SUCCEEDED = 'sum(captionq_jobs_total{state="succeeded"})'


def get(url: str, authorization: str = "") -> httpx.Response:
    """What a URL answers. Raises httpx.HTTPError."""
    headers = {"Authorization": authorization} if authorization else {}
    return httpx.get(url, headers=headers, trust_env=False, timeout=5)


def asked(query: str) -> list[str]:
    """The values that Prometheus answers a query with."""
    answer = get(f"http://127.0.0.1:9090/api/v1/query?query={quote(query)}").json()
    return [series["value"][1] for series in answer["data"]["result"]]


def until(what: str, call: Callable[[], bool]) -> None:
    """Wait for something to be true. Raises RuntimeError: it is not in time."""
    deadline_s = time.monotonic() + WATCH_S
    problem: object = None
    while time.monotonic() < deadline_s:
        try:
            if call():
                print(f"checked: {what}", flush=True)
                return
        except (httpx.HTTPError, KeyError) as exc:
            problem = exc
        time.sleep(0.25)
    raise RuntimeError(f"not so after {WATCH_S} s: {what} ({problem})")


def check(root: Path) -> None:
    """Whether everything runs. Raises RuntimeError."""
    settings = systemctl.assignments((root / "etc/captionq/flower.env").read_text())
    basic = "Basic " + base64.b64encode(settings["FLOWER_BASIC_AUTH"].encode()).decode()
    flower = "http://127.0.0.1:5555/api/workers"
    for name, url in RUN.items():
        until(f"{name} is healthy", lambda url=url: get(url).status_code == 200)  # type: ignore[misc]
    until("the gateway is ready", lambda: get("http://127.0.0.1:8000/readyz").status_code == 200)
    until("Flower asks for a login", lambda: get(flower).status_code == 401)
    until("and shows two workers", lambda: len(get(f"{flower}?refresh=1", basic).json()) == 2)
    until("Prometheus scrapes two workers", lambda: asked(UP.format("worker")) == ["1", "1"])
    until("and the gateway", lambda: asked(UP.format("gateway")) == ["1"])
    until("and Flower", lambda: asked('up{job="flower"}') == ["1"])
    until("it counts two workers", lambda: asked("max(captionq_workers)") == ["2"])
