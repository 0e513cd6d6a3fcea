"""Fixtures of unit tests: a results store in each of its forms."""

from collections.abc import Iterator
from typing import Any

import pytest

from producer.memory_store import MemoryStore
from producer.redis_store import RedisStore
from producer.store import Store
from tests.stores import Blocking, MakeStore


@pytest.fixture(params=["memory", "redis", "async redis"])
def make_store(request: pytest.FixtureRequest) -> Iterator[MakeStore]:
    stores: list[Store] = []

    def make(**options: Any) -> Store:
        if request.param == "memory":
            store: Store = MemoryStore(**options)
        else:
            url = request.getfixturevalue("redis_server").url
            store = (RedisStore if request.param == "redis" else Blocking)(url, **options)
        stores.append(store)
        return store

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    return make_store()
