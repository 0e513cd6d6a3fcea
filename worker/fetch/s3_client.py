"""A client of the S3 service that the operator named, whose requests end at deadlines.

boto3 is imported here alone, botocore in the modules beside and in `worker.sink_s3` as well.
"""

import logging
import re
import ssl
from dataclasses import dataclass
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

from worker.fetch.s3_transport import S3Transport


@dataclass(frozen=True, slots=True)
class S3Limits:
    """What one fetch may cost. Seconds, bytes, counts.

    Attributes:
        tries: requests per fetch, the first included; the job's own retries come on top.
        max_connections: fetches at a time; more wait, their deadline running.
    """

    connect_s: float = 3
    idle_s: float = 5
    total_s: float = 10
    tries: int = 2
    max_bytes: int = 20 * 1024 * 1024
    max_connections: int = 32


def refused(exc: ClientError) -> tuple[int, str]:
    """The HTTP status of what S3 refused with (0: none), and that with its code, for the log: its
    text may quote what it was asked, and so a credential."""
    status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    said = re.sub(r"[^A-Za-z0-9]", "", str(exc.response.get("Error", {}).get("Code")))[:64]
    return status, f"{status} {said}"


def s3_client(
    limits: S3Limits,
    *,
    endpoint_url: str | None = None,
    region: str | None = None,
    access_key: str | None = None,
    secret_key: str | None = None,
) -> tuple[Any, S3Transport]:
    """boto3's client, and the transport that is to be held to a deadline around each call.

    Args:
        endpoint_url: the service; None for AWS.
        region: None for boto3's own search, then us-east-1.
        access_key, secret_key: None for boto3's own search (environment, profile, instance role).
    """
    for name in ("boto3", "botocore", "httpcore2"):  # in detail they log signed requests
        logging.getLogger(name).setLevel(logging.INFO)
    core = botocore.session.get_session()
    bundle = core.get_config_variable("ca_bundle")
    transport = S3Transport(
        connect_s=limits.connect_s,
        idle_s=limits.idle_s,
        max_bytes=limits.max_bytes,
        max_connections=limits.max_connections,
        ssl_context=ssl.create_default_context(cafile=bundle) if bundle else None,
    )
    session = boto3.session.Session(botocore_session=core)
    client: Any = session.client(
        "s3",
        endpoint_url=endpoint_url,
        region_name=region or session.region_name or "us-east-1",
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=Config(
            signature_version="s3v4",
            # Other makers' services answer no checksums, or ones botocore cannot check.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path" if endpoint_url else "auto"},
            connect_timeout=limits.connect_s,
            read_timeout=limits.idle_s,
            retries={"mode": "standard", "total_max_attempts": limits.tries},
            max_pool_connections=limits.max_connections,
        ),
    )
    client.meta.events.register("before-send.s3", transport.send)
    return client, transport
