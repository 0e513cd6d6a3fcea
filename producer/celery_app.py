"""Celery as everything here uses it: the connections of its apps to the broker."""

import ssl
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import kombu
from celery import Celery
from celery.app.amqp import AMQP as CELERYS

from producer.redis_at import SENTINEL, Sentinels, said_of_tls


class Connection(kombu.Connection):
    """A connection that stays with its URL where that is Sentinel's.

    kombu takes the next of several URLs after each failure. Of Sentinels all are asked at each
    connection in any case, and the next URL has neither the password nor the database of the first,
    nor the transport that was asked for.

    By amqps:// the name in a server's certificate is held to be that of its URL, which kombu leaves
    out; ssl_ca_certs, ssl_certfile and ssl_keyfile may follow it, as they do rediss://.
    """

    def _init_params(self, *given: Any, **named: Any) -> None:
        super()._init_params(*given, **named)
        if self.transport_cls == "amqps":
            said = self.ssl if isinstance(self.ssl, dict) else {}
            said = {name.removeprefix("ssl_"): value for name, value in said.items()}
            self.ssl = {
                "cert_reqs": ssl.CERT_REQUIRED, **said, "server_hostname": self.hostname
            }  # fmt: skip

    def maybe_switch_next(self) -> None:
        """Take the next node of a RabbitMQ, if there are several."""
        if not (self.alt and self.alt[0].startswith(SENTINEL)):
            super().maybe_switch_next()


class AMQP(CELERYS):
    """Celery's, with such connections."""

    Connection = Connection


def celery_app(
    broker_url: str, master: str, transport_options: dict[str, Any], **options: Any
) -> Celery:
    """The Celery app of a broker, or of the master that Sentinel names; options are Celery()'s."""
    reach: dict[str, Any] = {"broker_transport_options": transport_options}
    if broker_url.startswith(SENTINEL):
        at = Sentinels.of(broker_url)
        found = {"master_name": master, "sentinel_kwargs": at.sentinel_kwargs}
        reach["broker_transport_options"] = transport_options | found
        broker_url, tls = at.celery_url, at.tls
    else:
        broker_url, tls = _checked(broker_url)
    if tls:
        reach["broker_use_ssl"] = tls
    app = Celery("captionq", broker=broker_url, amqp=f"{__name__}:{AMQP.__name__}", **options)
    app.conf.update(reach)
    return app


def results_at(url: str) -> dict[str, Any]:
    """Celery's settings by which it keeps results where the results store is."""
    if not url.startswith(SENTINEL):
        return {"result_backend": _checked(url)[0]}
    at = Sentinels.of(url)
    found = {"master_name": at.master, "sentinel_kwargs": at.sentinel_kwargs}
    tls = {"redis_backend_use_ssl": at.tls} if at.tls else {}
    return {"result_backend": at.celery_url, "result_backend_transport_options": found, **tls}


def _checked(url: str) -> tuple[str, dict[str, Any]]:
    """A URL, and what it says of TLS. Of a rediss:// URL that says nothing of certificates kombu
    checks none, by a transport of one's own speaks no TLS at all, and Celery's backend refuses it.
    """
    parts = urlsplit(url)
    if parts.scheme != "rediss":
        return url, {}
    query = dict(parse_qsl(parts.query))
    if "ssl_cert_reqs" not in query:
        query["ssl_cert_reqs"] = "required"
        url = urlunsplit(parts._replace(query=urlencode(query)))
    return url, said_of_tls(query)
