"""One bounded GET, for what SNS keeps for its receivers: certificates, and confirmations."""

import asyncio
from typing import Any

TIMEOUT_S = 5.0
MAX_BYTES = 65_536


class FetchFailed(OSError):  # noqa: N818 - "failed" is what it did
    """The URL could not be fetched; the text says why."""


async def fetch(url: str) -> bytes:
    """The body at a URL, of at most MAX_BYTES, within about TIMEOUT_S; without redirects, cookies
    or a proxy.

    The caller says which URLs these may be.

    Raises:
        FetchFailed: it is not there, too large, or too slow.
    """
    try:
        return await asyncio.wait_for(asyncio.to_thread(_get, url), 2 * TIMEOUT_S)
    except TimeoutError as exc:
        raise FetchFailed("no answer in time") from exc


def _get(url: str) -> bytes:
    import urllib3  # with boto3, in the gateway's extra

    try:
        with urllib3.PoolManager(retries=False, timeout=TIMEOUT_S) as pool:
            answer: Any = pool.request("GET", url, redirect=False, preload_content=False)
            body: bytes = answer.read(MAX_BYTES + 1)
    except urllib3.exceptions.HTTPError as exc:
        raise FetchFailed(str(exc)) from exc
    if answer.status != 200:  # HTTP's OK
        raise FetchFailed(f"status {answer.status}")
    if len(body) > MAX_BYTES:
        raise FetchFailed(f"more than {MAX_BYTES:,} bytes")
    return body
