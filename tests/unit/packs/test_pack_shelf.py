"""Packs on the device: loaded once, the least recently used out, and no failure is the worker's."""

import gc
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pytest

from producer.errors import ErrorCode
from tests.unit.packs.test_pack_choice import found
from worker.blip.errors import CheckpointError, DeviceLost, OutOfMemory, PackError
from worker.errors import Fault
from worker.packs.choice import Unavailable
from worker.packs.found import Found
from worker.packs.shelf import Shelf


@dataclass(frozen=True, eq=False)
class FakePack:
    name: str
    revision: str = "0123456789ab"
    bytes: int = 1


def load(one: Found) -> FakePack:
    return FakePack(one.name)


def shelf(
    room: int = 2, pinned: tuple[str, ...] = (), by: Callable[[Found], object] = load
) -> Shelf:
    return Shelf(by, room, pinned)  # type: ignore[arg-type]


A, B, C, D = map(found, "abcd")


def test_given_more_packs_than_room_then_the_least_recently_used_goes() -> None:
    kept = shelf(room=2)
    for one in (A, B, A, C):
        kept.take(one)
    assert kept.names == ["a", "c"]
    kept.take(B)
    assert kept.names == ["c", "b"]
    assert kept.loads == {"a": 1, "b": 2, "c": 1}


def test_given_pinned_packs_then_they_stay_beside_the_room() -> None:
    kept = shelf(room=1, pinned=("a",))
    for one in (A, B, C, D):
        kept.take(one)
    assert sorted(kept.names) == ["a", "d"]


def test_given_a_pack_that_went_while_it_is_held_then_the_same_is_given_again() -> None:
    kept = shelf(room=1)
    held = kept.take(A)
    kept.take(B)
    assert kept.take(A) is held
    assert kept.loads["a"] == 1
    kept.take(B)
    del held
    gc.collect()
    kept.take(A)
    assert kept.loads["a"] == 2


def test_given_many_who_ask_at_once_then_it_is_loaded_once() -> None:
    begun = threading.Barrier(8)

    def slow(one: Found) -> FakePack:
        time.sleep(0.05)
        return FakePack(one.name)

    kept = shelf(by=slow)

    def ask(_: int) -> object:
        begun.wait(5)
        return kept.take(A)

    with ThreadPoolExecutor(8) as pool:
        packs = list(pool.map(ask, range(8)))
    assert len(set(map(id, packs))) == 1
    assert kept.loads == {"a": 1}


def test_given_a_slow_pack_then_others_are_not_held_up() -> None:
    go = threading.Event()

    def by(one: Found) -> FakePack:
        if one.name == "a":
            assert go.wait(5)
        return FakePack(one.name)

    kept = shelf(by=by)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(kept.take, A)
        assert kept.take(B).name == "b"
        go.set()
        assert slow.result(5).name == "a"


@pytest.mark.parametrize(
    ("error", "code", "again"),
    [
        (PackError("lora_alpha must be a number"), ErrorCode.LANGUAGE_UNAVAILABLE, False),
        (CheckpointError("the tokenizer cannot be read"), ErrorCode.LANGUAGE_UNAVAILABLE, False),
        (OutOfMemory("out of memory on cuda:0"), ErrorCode.OUT_OF_MEMORY, True),
        (MemoryError(), ErrorCode.OUT_OF_MEMORY, True),
        (DeviceLost("lost cuda:0"), ErrorCode.DEVICE_LOST, True),
        (Fault(ErrorCode.FETCH_TIMEOUT), ErrorCode.S3_UNAVAILABLE, True),
        (Fault(ErrorCode.S3_UNAVAILABLE), ErrorCode.S3_UNAVAILABLE, True),
        (Fault(ErrorCode.S3_DENIED), ErrorCode.LANGUAGE_UNAVAILABLE, True),
        (OSError(28, "No space left on device"), ErrorCode.LANGUAGE_UNAVAILABLE, True),
    ],
)
def test_given_a_pack_that_cannot_be_loaded_then_who_asks_learns_why_and_may_ask_again(
    error: Exception, code: ErrorCode, again: bool
) -> None:
    broken, tried = [True], [0]

    def by(one: Found) -> FakePack:
        tried[0] += 1
        if broken[0]:
            raise error
        return FakePack(one.name)

    kept = shelf(by=by)
    with pytest.raises((Fault, Unavailable)) as caught:
        kept.take(A)
    assert caught.value.code is code  # type: ignore[attr-defined]
    tries = tried[0]
    broken[0] = False
    if again:
        assert kept.take(A).name == "a"
        return
    with pytest.raises(Unavailable, match=str(error)):
        kept.take(A)
    assert tried[0] == tries  # it is known to be damaged
    kept.keep_only([])
    assert kept.take(replace(A, stamp="2")).name == "a"


def test_given_too_little_memory_then_what_nobody_needs_makes_room() -> None:
    kept: Shelf

    def by(one: Found) -> FakePack:
        if one.name == "c" and "a" in kept.names:
            raise OutOfMemory("out of memory")
        return FakePack(one.name)

    kept = shelf(room=4, pinned=("b",), by=by)
    for one in (A, B, C):
        kept.take(one)
    assert sorted(kept.names) == ["b", "c"]


def test_given_a_pack_that_has_changed_then_the_old_one_goes() -> None:
    kept = shelf(room=4)
    kept.take(A)
    newer = replace(A, stamp="2")
    kept.keep_only([newer])
    assert kept.names == []
    kept.take(newer)
    assert kept.loads == {"a": 2}
