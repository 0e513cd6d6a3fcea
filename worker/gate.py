"""The gate: where jobs have to be signed, only genuine messages come past it.

It stands before everything that is done for the id that a message names. Whoever can write to the
broker can name any id; so a message that is refused

  - is kept as a dead letter, with the reason, and fails as signature_invalid for who sent it;
  - leaves alone the record of the job whose id it names, and what Celery may yet bring of it: a
    forger would else end jobs by their ids, or take ids before they are submitted;
  - ends that record only when the recorded job is itself none that a worker would run: it was
    submitted without a key, or with one unknown here, and nothing else would ever end it.
"""

import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from producer.contract import JOB_ID_PATTERN, JobError, JobFailed, JobResult, JobState, utcnow
from producer.errors import ErrorCode
from producer.signing import BadSignature, Verifier
from producer.store import Store
from worker.deadletter import letter
from worker.delivery import Delivery
from worker.publish import patiently

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gate:
    """Tells genuine messages from others, which it keeps.

    Args:
        keep: writes a dead letter of these fields; may raise StoreUnavailable.
        patience_s: how long an absent results store is waited for, seconds.
    """

    verifier: Verifier
    store: Store
    keep: Callable[[Mapping[str, str]], None]
    patience_s: float

    def admit(self, kind: str, delivery: Delivery, patience_s: float | None = None) -> Delivery:
        """The delivery, its payload as it was signed.

        Raises:
            JobFailed: signature_invalid; what was to be done about it is done.
            StoreUnavailable: it is refused, and that cannot be written.
        """
        try:
            job = self.verifier.verified(kind, delivery.job_id, delivery.payload)
        except BadSignature as exc:
            patience_s = self.patience_s if patience_s is None else patience_s
            self._refuse(kind, delivery, str(exc), patience_s)
            raise JobFailed(ErrorCode.SIGNATURE_INVALID) from exc
        return delivery._replace(payload=job)

    def _refuse(self, kind: str, delivery: Delivery, reason: str, patience_s: float) -> None:
        log.warning("job %r is refused: %s", delivery.job_id, reason)
        failure = JobFailed(ErrorCode.SIGNATURE_INVALID)
        can_have_record = re.fullmatch(JOB_ID_PATTERN, delivery.job_id)
        refused = JobResult(
            job_id=delivery.job_id if can_have_record else ascii(delivery.job_id)[:200],
            task=kind,
            state=JobState.FAILED,
            attempts=delivery.attempt - 1,
            image_ref=delivery.image_ref,
            error=JobError.of(failure),
            finished_at=utcnow(),
        )
        fields = letter(refused, failure, delivery.payload, delivery.queue, reason) or {}

        def write() -> None:
            if can_have_record and self._record_is_refused_too(delivery.job_id):
                self.store.finish(refused, fields)
            else:
                self.keep(fields)

        patiently(write, patience_s)

    def _record_is_refused_too(self, job_id: str) -> bool:
        try:
            record = self.store.get(job_id)
        except ValueError as exc:  # others write to the store as well
            log.warning("the record of job %s cannot be read: %s", job_id, exc)
            return False
        if record is None or record.state.terminal or record.job is None:
            return False
        try:
            self.verifier.verified(record.task, job_id, json.loads(record.job))
        except (ValueError, RecursionError):
            return True
        return False
