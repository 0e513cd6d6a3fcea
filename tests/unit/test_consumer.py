"""Which messages of Celery's protocol can be handed to a thread."""

from typing import Any

import pytest

from worker.consumer import is_readable


@pytest.mark.parametrize(
    ("payload", "readable"),
    [
        pytest.param([[], {}, {}], True, id="arguments"),
        pytest.param([[1], {"a": 1}, {"chord": None}], True, id="arguments and options"),
        pytest.param([[], {}, None], True, id="no options"),
        pytest.param({"args": [], "kwargs": {}, "id": "1"}, True, id="the older protocol"),
        pytest.param([[], {}], False, id="two parts"),
        pytest.param([[], {}, {}, {}], False, id="four parts"),
        pytest.param([{}, [], {}], False, id="parts of other kinds"),
        pytest.param([[], {}, 5], False, id="options of another kind"),
        pytest.param({"kwargs": {}}, False, id="a mapping without arguments"),
        pytest.param("abc", False, id="a text"),
        pytest.param("args", False, id="a text that has the word"),
        pytest.param(["args", 1, 2], False, id="a list that has the word"),
        pytest.param(None, False, id="nothing"),
        pytest.param(5, False, id="a number"),
    ],
)
def test_given_a_body_then_it_is_readable_if_it_holds_arguments(
    payload: Any, readable: bool
) -> None:
    assert is_readable(payload) is readable
