"""Names on the broker."""

import pytest

from producer.queues import BULK, DEFAULT_QUEUE, is_bulk, queue_for, queues_served


@pytest.mark.parametrize(
    ("task", "model", "queue"),
    [
        pytest.param("caption", None, "captionq.caption", id="any model"),
        pytest.param("match", None, "captionq.match", id="another task"),
        pytest.param("caption", "org/blip", "captionq.caption.org-blip", id="one model"),
        pytest.param("caption", "a b:c/", "captionq.caption.a-b-c", id="odd characters"),
    ],
)
def test_a_job_goes_to_the_queue_of_its_task_and_model(
    task: str, model: str | None, queue: str
) -> None:
    assert queue_for(task, model) == queue


def test_an_unknown_task_has_no_queue() -> None:
    with pytest.raises(KeyError):
        queue_for("paint")


def test_a_worker_takes_from_the_default_queue_and_from_those_of_what_it_loaded() -> None:
    served = queues_served([("caption", "org/blip"), ("match", "org/itm")])

    assert served == [
        DEFAULT_QUEUE,
        "captionq.caption",
        "captionq.caption.org-blip",
        "captionq.match",
        "captionq.match.org-itm",
        "captionq.caption.bulk",
        "captionq.caption.org-blip.bulk",
        "captionq.match.bulk",
        "captionq.match.org-itm.bulk",
    ]


def test_every_queue_a_job_can_go_to_is_served_by_the_worker_that_fits() -> None:
    served = queues_served([("caption", "org/blip")])

    assert queue_for("caption") in served
    assert queue_for("caption", "org/blip") in served
    assert queue_for("caption", "org/other") not in served


@pytest.mark.parametrize(
    ("model", "queue"),
    [
        pytest.param(None, "captionq.caption.bulk", id="any model"),
        pytest.param("org/blip", "captionq.caption.org-blip.bulk", id="one model"),
        pytest.param("bulk", "captionq.caption.bulk-.bulk", id="a model called bulk"),
    ],
)
def test_given_a_bulk_job_then_it_goes_to_the_bulk_queue_of_its_task_and_model(
    model: str | None, queue: str
) -> None:
    assert queue_for("caption", model, BULK) == queue
    assert is_bulk(queue)


@pytest.mark.parametrize("model", [None, "org/blip", "bulk", "org/blip.bulk", "a.bulk/"])
def test_given_an_interactive_job_of_any_model_then_its_queue_is_of_that_lane_and_no_others(
    model: str | None,
) -> None:
    queue = queue_for("caption", model)

    assert not is_bulk(queue)
    assert queue not in {queue_for("caption", other, BULK) for other in (None, "org/blip", "a")}


def test_the_default_queue_of_plain_clients_is_interactive() -> None:
    assert not is_bulk(DEFAULT_QUEUE)
