"""Jobs whose message says no more than where they are: a chunk lies in its record alone."""

import json
import logging

from producer.contract import ErrorCode, JobFailed
from producer.store import Store
from worker.delivery import Delivery
from worker.publish import patiently

log = logging.getLogger(__name__)


def looked_up(store: Store, delivery: Delivery, patience_s: float) -> Delivery:
    """The delivery with the JSON object of the job that its message names; others as they are.

    A record that holds no job is left to whoever judges the message: so it ends nothing.

    Raises:
        JobFailed: job_expired; there is no such record any more.
        StoreUnavailable: after `patience_s` seconds without the store.
    """
    if not delivery.recorded:
        return delivery
    try:
        record = patiently(lambda: store.get(delivery.job_id), patience_s)
        payload = json.loads(record.job) if record is not None and record.job else None
    except (ValueError, RecursionError) as exc:  # others write to the store as well
        log.warning("the record of job %r cannot be read: %s", delivery.job_id, exc)
        return delivery
    if record is None:
        log.warning("job %r has no record any more: it ends as expired", delivery.job_id)
        raise JobFailed(ErrorCode.JOB_EXPIRED)
    return delivery if payload is None else delivery._replace(payload=payload)
