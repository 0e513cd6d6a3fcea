"""`captionq-worker check-url`: whether a worker set up like this would fetch a URL, unfetched."""

import json
from typing import Annotated, Any

import typer

from worker.clear_errors import checked_settings
from worker.errors import ErrorCode, Fault
from worker.fetch.file import FileSource
from worker.fetch.http import HttpLimits
from worker.fetch.netguard import check_address, parse_allow, ports_named
from worker.fetch.resolve import Lookup, Resolver, lookup
from worker.fetch.s3_uri import check_place, parse_s3_uri
from worker.fetch.url import parse_url
from worker.settings import WorkerSettings

Urls = Annotated[
    list[str],
    typer.Argument(metavar="URL...", help="http://, https://, s3:// or file://; or anything else."),
]


def check_url(urls: Urls) -> None:
    """Say of each URL whether a worker with these settings would fetch it.

    Nothing is fetched. One JSON document a line: the url, whether it is
    allowed, the code a job would fail with (null when it is allowed), and
    the addresses its name has now.

    Names are looked up as for a fetch, within 2 s, and every address is
    checked, by the rules and by CAPTIONQ_FETCH_ALLOW. s3:// and file:// are
    held against CAPTIONQ_S3_ALLOW and CAPTIONQ_FILE_ROOT; nobody is asked
    whether there is such an object. Allowed is not reachable: the host may
    be down, refuse, or redirect to where nothing is fetched from.

    Codes: url_invalid (no URL, another scheme or port, a user name, a
    disguise), url_blocked (an address that is not public), dns_failed,
    bucket_not_allowed, file_not_allowed. The exit status is 0, whatever is
    found.

    Example: captionq-worker check-url http://169.254.169.254/ s3://photos/a
    """
    judge = Judge(checked_settings())
    for url in urls:
        # ASCII, with whatever else escaped: arguments may hold bytes that are no text.
        print(json.dumps(judge(url)), flush=True)


class Judge:
    """The rules of a worker's stores, without the stores.

    Args:
        settings: the worker's.
        resolve: (host, port) -> addresses; a seam for tests.
    """

    def __init__(self, settings: WorkerSettings, resolve: Lookup = lookup) -> None:
        limits = HttpLimits()
        self._public_ports = limits.ports
        self._allow = [parse_allow(entry) for entry in settings.fetch_exceptions]
        self._ports = ports_named(limits.ports, self._allow)
        self._resolver = Resolver(resolve, limits.dns_s)
        self._proxied = settings.fetch_proxy is not None
        self._places = settings.s3_places
        self._files = FileSource(settings.file_root)

    def __call__(self, url: str) -> dict[str, Any]:
        """What is found of one URL, as it is printed. Raises nothing for any text."""
        addresses: list[str] = []
        code = None
        try:
            match url.partition("://")[0].lower():
                case "http" | "https":
                    self._judge_http(url, addresses)
                case "s3":
                    bucket, key, _ = parse_s3_uri(url)
                    check_place(bucket, key, self._places)
                case "file":
                    self._files.place(url)
                case _:
                    raise Fault(ErrorCode.URL_INVALID, "no store serves the URL's scheme")
        except Fault as fault:
            code = fault.code
        return {"url": url, "allowed": code is None, "code": code, "addresses": addresses}

    def _judge_http(self, url: str, addresses: list[str]) -> None:
        """Note the addresses of a URL's host, and check each. Raises: Fault."""
        target = parse_url(url, self._ports)
        try:
            addresses += self._resolver.addresses(target.host, target.port)
        except Fault:
            if not self._proxied:  # a proxy may know names that are not known here
                raise
        for address in addresses:
            check_address(address, target.port, self._allow, self._public_ports)
