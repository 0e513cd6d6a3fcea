"""Messages that Amazon SNS sends to HTTP endpoints: read, and told from what others send.

What is signed, and how: "Verifying the signatures of Amazon SNS messages", in SNS' own guide.
SignatureVersion 1 is SHA-1 with RSA, 2 is SHA-256 with RSA, both by PKCS #1 v1.5. The certificate
is fetched from SNS' own host over https, and from nowhere else.
"""

import asyncio
import base64
import binascii
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

TYPE_HEADER = "x-amz-sns-message-type"
"""Of every request of SNS."""

RAW_HEADER = "x-amz-sns-rawdelivery"
"""Of those of raw delivery: the message alone, not signed."""

HOST = r"https://sns\.[a-z0-9-]{3,40}\.amazonaws\.com(?:\.cn)?"
CERTIFICATE_URL = re.compile(HOST + r"/SimpleNotificationService-[A-Za-z0-9]{1,100}\.pem")
CONFIRM_URL = re.compile(HOST + r"/\?Action=ConfirmSubscription&[A-Za-z0-9&=%:._~+-]{1,2000}")

SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": (
        "Message",
        "MessageId",
        "SubscribeURL",
        "Timestamp",
        "Token",
        "TopicArn",
        "Type",
    ),
}
SIGNED["UnsubscribeConfirmation"] = SIGNED["SubscriptionConfirmation"]
"""Members whose names and values are signed, in this order; Subject where there is one."""

ALGORITHMS: dict[str, hashes.HashAlgorithm] = {
    "1": hashes.SHA1(),  # noqa: S303 - SNS' default, and what it signs cannot be chosen freely
    "2": hashes.SHA256(),
}
MAX_CERTIFICATES = 32
FAST_CLOCK = timedelta(minutes=15)
"""How far ahead of ours its clock may be."""


class NotSns(ValueError):  # noqa: N818 - that is what it is
    """The body is no message of SNS."""


class Unsigned(ValueError):  # noqa: N818 - that is what it is
    """The message has no signature, or lacks what would verify it."""


class Forged(ValueError):  # noqa: N818 - that is what it is
    """The signature is wrong, or its certificate is not of SNS, or not valid now."""


class CertificateUnavailable(OSError):  # noqa: N818 - "unavailable" is what it is
    """The certificate could not be fetched: nothing is known of the message."""


class SnsMessage(BaseModel):
    """A message of SNS, as its JSON has it."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    type: Annotated[
        Literal["Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation"],
        Field(alias="Type"),
    ]
    message_id: Annotated[str, Field(alias="MessageId", min_length=1, max_length=200)]
    topic_arn: Annotated[str, Field(alias="TopicArn", max_length=500)]
    message: Annotated[str, Field(alias="Message")]
    timestamp: Annotated[str, Field(alias="Timestamp", max_length=40)]
    subject: Annotated[str | None, Field(alias="Subject")] = None
    token: Annotated[str | None, Field(alias="Token")] = None
    subscribe_url: Annotated[str | None, Field(alias="SubscribeURL", max_length=4_000)] = None
    signature: Annotated[str | None, Field(alias="Signature", max_length=4_000)] = None
    signature_version: Annotated[str | None, Field(alias="SignatureVersion")] = None
    signing_cert_url: Annotated[str | None, Field(alias="SigningCertURL", max_length=500)] = None

    @classmethod
    def read(cls, body: bytes) -> "SnsMessage":
        """Raises: NotSns."""
        try:
            return cls.model_validate_json(body)
        except ValidationError as exc:
            fault = exc.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, fault["loc"]))
            raise NotSns(f"{where or 'the body'}: {fault['msg']}") from None

    @property
    def signed(self) -> bytes:
        """What the signature is of.

        Raises:
            Forged: it is not text.
        """
        said = self.model_dump(by_alias=True)
        lines = (f"{name}\n{said[name]}\n" for name in SIGNED[self.type] if said[name] is not None)
        try:
            return "".join(lines).encode()
        except UnicodeEncodeError as exc:
            raise Forged("what is signed is not text") from exc

    @property
    def at(self) -> datetime:
        """When it was published. Raises: Forged: it does not say."""
        try:
            moment = datetime.fromisoformat(self.timestamp)
        except ValueError as exc:
            raise Forged("the Timestamp is none") from exc
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    def fresh(self, now: datetime, max_age_s: float) -> bool:
        """Whether it was published a short while ago. Raises: Forged: see `at`."""
        return now - timedelta(seconds=max_age_s) <= self.at <= now + FAST_CLOCK


class Verifier:
    """Tells messages of SNS from others.

    Args:
        fetch: the body at a URL, bounded; raises OSError.
    """

    def __init__(self, fetch: Callable[[str], Awaitable[bytes]]) -> None:
        self._fetch = fetch
        self._certificates: OrderedDict[str, x509.Certificate] = OrderedDict()
        self._fetching = asyncio.Semaphore(2)  # what strangers can make this ask for

    async def verify(self, message: SnsMessage, now: datetime) -> None:
        """Pass a message that SNS has signed.

        Raises:
            Unsigned, Forged: it has not, as far as can be told.
            CertificateUnavailable: that cannot be told now.
        """
        url, version = message.signing_cert_url, message.signature_version
        if message.signature is None or url is None or version is None:
            raise Unsigned("Signature, SignatureVersion and SigningCertURL are needed")
        if version not in ALGORITHMS:
            raise Forged(f"SignatureVersion is one of {', '.join(ALGORITHMS)}")
        if not CERTIFICATE_URL.fullmatch(url):
            raise Forged("SigningCertURL is not https://sns.REGION.amazonaws.com/...pem")
        try:
            signature = base64.b64decode(message.signature, validate=True)
        except (binascii.Error, ValueError) as exc:
            raise Forged("the Signature is not base64") from exc
        certificate = await self._certificate(url)
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            self._certificates.pop(url, None)
            raise Forged("the certificate is not valid now")
        key = certificate.public_key()
        if not isinstance(key, rsa.RSAPublicKey):
            raise Forged("the certificate is not of an RSA key")
        try:
            key.verify(signature, message.signed, padding.PKCS1v15(), ALGORITHMS[version])
        except InvalidSignature as exc:
            raise Forged("the signature is not of this message") from exc

    async def _certificate(self, url: str) -> x509.Certificate:
        if url not in self._certificates:
            async with self._fetching:
                if url not in self._certificates:  # somebody else's fetch may have had it
                    await self._fetched(url)
        self._certificates.move_to_end(url)
        return self._certificates[url]

    async def _fetched(self, url: str) -> None:
        try:
            certificate = x509.load_pem_x509_certificate(await self._fetch(url))
        except (OSError, ValueError) as exc:
            raise CertificateUnavailable(f"{url}: {exc}") from exc
        self._certificates[url] = certificate
        while len(self._certificates) > MAX_CERTIFICATES:
            self._certificates.popitem(last=False)
