"""The Redis transport of the worker: kombu's, made to live through a restart of Redis."""

from kombu.transport.redis import Transport as RedisTransport


class Transport(RedisTransport):
    """kombu's Redis transport, for which a connection that broke while messages were in flight is
    a connection error like others.

    kombu 5.7 restores unacknowledged messages through a connection that it has lost by then, and
    raises AttributeError; Celery takes that for a fault of the program and ends the worker.
    """

    connection_errors = (*RedisTransport.connection_errors, AttributeError)


def transport_for(broker_url: str) -> str | None:
    """The transport of a broker URL as Celery takes it; None leaves the choice to kombu."""
    if broker_url.startswith(("redis://", "rediss://")):
        return f"{__name__}:{Transport.__name__}"
    return None
