"""What is looked up, what of it is dialled, and the budget that sockets are held to."""

import socket
import threading
import time
from typing import Any

import httpcore2
import pytest

from tests.timing import least_s
from worker.errors import ErrorCode, Fault
from worker.fetch.dial import Budget, GuardedBackend
from worker.fetch.netguard import check_address
from worker.fetch.resolve import Lookup, Resolver


class Sockets(httpcore2.NetworkBackend):
    """Notes what is dialled; each answers as the peer that `peers` says it is."""

    def __init__(self, peers: dict[str, str]) -> None:
        self.peers = peers
        self.dialled: list[str] = []
        self.closed = 0

    def connect_tcp(self, host: str, *_: Any, **__: Any) -> httpcore2.NetworkStream:
        self.dialled.append(host)
        if host not in self.peers:
            raise httpcore2.ConnectError("nobody there")
        return Peer(self, self.peers[host])


class Peer(httpcore2.NetworkStream):
    def __init__(self, sockets: Sockets, address: str) -> None:
        self.sockets = sockets
        self.address = address

    def get_extra_info(self, info: str) -> Any:
        return (self.address, 443)

    def close(self) -> None:
        self.sockets.closed += 1


def backend(answers: list[str], peers: dict[str, str]) -> tuple[GuardedBackend, Sockets]:
    made = GuardedBackend(check_address, Budget(), Resolver(lambda host, port: answers))
    made._sockets = sockets = Sockets(peers)  # type: ignore[assignment]
    return made, sockets


@pytest.mark.parametrize(
    ("answers", "dialled"),
    [
        (["8.8.8.8"], ["8.8.8.8"]),
        (["8.8.8.8", "8.8.4.4"], ["8.8.8.8"]),
        (["1.1.1.1", "8.8.8.8"], ["1.1.1.1", "8.8.8.8"]),  # the first is down
        (["1.1.1.1", "1.0.0.1", "8.8.8.8"], ["1.1.1.1", "1.0.0.1"]),
        (["8.8.8.8", "10.0.0.1"], []),
        (["8.8.8.8", "8.8.4.4", "9.9.9.9", "::1"], []),
        (["::ffff:8.8.8.8"], ["::ffff:8.8.8.8"]),
        (["fe80::1%2"], []),
    ],
)
def test_given_the_answers_of_a_lookup_when_dialled_then_all_are_checked_and_two_tried(
    answers: list[str], dialled: list[str]
) -> None:
    up = {address: address for address in ("8.8.8.8", "8.8.4.4", "::ffff:8.8.8.8")}
    guarded, sockets = backend(answers, up)
    try:
        ended: object = guarded.connect_tcp("cat.example", 443) is not None
    except Fault as fault:
        ended = fault.code
    except httpcore2.ConnectError:
        ended = False
    last_is_up = dialled[-1] in up if dialled else ErrorCode.URL_BLOCKED
    assert ended == last_is_up
    assert sockets.dialled == dialled


def test_given_a_peer_other_than_was_dialled_when_it_is_forbidden_then_it_is_closed() -> None:
    guarded, sockets = backend(["8.8.8.8"], {"8.8.8.8": "10.0.0.1"})
    with pytest.raises(Fault) as caught:
        guarded.connect_tcp("cat.example", 443)
    assert caught.value.code is ErrorCode.URL_BLOCKED
    assert sockets.closed == 1


def no_such_host(host: str, port: int) -> list[str]:
    raise socket.gaierror(socket.EAI_NONAME, "no such host")


def no_such_name(host: str, port: int) -> list[str]:
    raise UnicodeError("label too long")


def hanging(host: str, port: int) -> list[str]:
    time.sleep(5)
    return ["8.8.8.8"]


@pytest.mark.parametrize("lookup", [no_such_host, no_such_name, hanging, lambda host, port: []])
def test_given_a_lookup_that_gives_nothing_when_asked_then_it_is_a_dns_failure_in_time(
    lookup: Lookup,
) -> None:
    def attempt() -> None:
        with pytest.raises(Fault) as caught:
            Resolver(lookup, timeout_s=0.2).addresses("cat.example", 443)
        assert caught.value.code is ErrorCode.DNS_FAILED

    assert least_s(attempt, 0.7) < 0.7


def test_given_a_shorter_limit_than_the_resolvers_when_a_lookup_hangs_then_it_holds() -> None:
    def attempt() -> None:
        with pytest.raises(Fault):
            Resolver(hanging, timeout_s=4).addresses("cat.example", 443, 0.1)

    assert least_s(attempt, 0.6) < 0.6


@pytest.mark.parametrize(
    ("literal", "address"),
    [("10.0.0.1", "10.0.0.1"), ("::ffff:a00:1", "::ffff:a00:1"), ("2606::A", "2606::a")],
)
def test_given_a_literal_when_looked_up_then_nobody_is_asked_and_it_is_its_own_address(
    literal: str, address: str
) -> None:
    assert Resolver(no_such_host).addresses(literal, 443) == [address]


def test_given_a_budget_when_its_time_or_its_bytes_are_used_up_then_it_says_which() -> None:
    budget = Budget()
    assert budget.clip(None) is None
    budget.spend(1 << 40)  # nothing was limited
    with budget.until(time.monotonic() + 60):
        assert budget.clip(5) == 5
        assert 59 < (budget.clip(None) or 0) <= 60
        assert 59 < (budget.clip(99) or 0) <= 60
        budget.grant(10, ErrorCode.BODY_TOO_LARGE)
        budget.spend(10)
        with pytest.raises(Fault) as caught:
            budget.spend(1)
        assert caught.value.code is ErrorCode.BODY_TOO_LARGE
        budget.grant(1, ErrorCode.CONNECT_FAILED)
        budget.spend(1)
    with budget.until(time.monotonic() - 1), pytest.raises(Fault) as caught:
        budget.clip(5)
    assert caught.value.code is ErrorCode.FETCH_TIMEOUT
    assert budget.clip(None) is None
    budget.spend(1 << 40)


def test_given_a_budget_when_another_thread_asks_then_it_has_its_own() -> None:
    budget = Budget()
    found = []
    with budget.until(time.monotonic() + 60):
        budget.grant(1, ErrorCode.BODY_TOO_LARGE)
        other = threading.Thread(target=lambda: (budget.spend(99), found.append(budget.clip(None))))
        other.start()
        other.join()
    assert found == [None]


def test_given_a_process_that_can_start_no_thread_when_asked_then_it_is_overloaded_for_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolver = Resolver(lambda host, port: ["8.8.8.8"])

    def none_left(_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_left)
        for _ in range(100):  # more than there are lookups at a time
            with pytest.raises(Fault) as caught:
                resolver.addresses("cat.example", 443)
            assert caught.value.code is ErrorCode.WORKER_OVERLOADED
    assert resolver.addresses("cat.example", 443) == ["8.8.8.8"]
