"""How a step on the job's path fails.

    Fault                  one code, a detail for the log, perhaps a wait the other side asked for
      transient            code in producer.errors.TRANSIENT: the same input may work later
      permanent            every other code

Each module maps the errors of the library it wraps to a Fault once, where it calls the library:

    worker.fetch.netguard  the URL and the address            url_invalid, url_blocked
    worker.fetch.http      httpcore2, ssl, zlib, getaddrinfo  http_*, tls_failed, dns_failed, ...
    worker.fetch.s3        botocore                           s3_*, bucket_not_allowed, ...
    worker.fetch.file      OSError                            file_*
    worker.image           Pillow                             image_*
    worker.sink            OSError, botocore, pyarrow         sink_*
"""

from producer.errors import TRANSIENT, ErrorCode, JobFailed

__all__ = ["ErrorCode", "Fault", "public_failure"]


class Fault(Exception):  # noqa: N818 - a fault has a code; "error" would say nothing more
    """A step could not be done.

    Attributes:
        code: the one thing a client learns, with its fixed public text.
        detail: for the log alone: it may name addresses, paths and the foreign error.
        retry_after_s: seconds the other side asked to be left alone, already capped.
    """

    def __init__(
        self, code: ErrorCode, detail: str = "", retry_after_s: float | None = None
    ) -> None:
        # All three go to args: a Fault crosses process borders by pickle.
        super().__init__(code, detail, retry_after_s)
        self.code = code
        self.detail = detail
        self.retry_after_s = retry_after_s

    @property
    def transient(self) -> bool:
        """Whether the same input may succeed later."""
        return self.code in TRANSIENT

    def __str__(self) -> str:
        return f"{self.code.value}: {self.detail}" if self.detail else self.code.value


def public_failure(exc: BaseException) -> JobFailed:
    """The public side of whatever ended the run of a job, or of one image of a chunk."""
    match exc:
        case JobFailed():
            return exc
        case Fault():
            return JobFailed(exc.code)
        case MemoryError():
            return JobFailed(ErrorCode.OUT_OF_MEMORY)
        case _:
            return JobFailed(ErrorCode.INTERNAL_ERROR)
