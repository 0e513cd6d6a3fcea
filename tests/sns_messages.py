"""A topic of SNS with a certificate of its own, made here: messages as SNS signs them."""

import base64
import uuid
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

TOPIC = "arn:aws:sns:eu-west-1:123456789012:uploads"
CERTIFICATE = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123abcd.pem"
CONFIRM = (
    "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription"
    "&TopicArn=arn:aws:sns:eu-west-1:123456789012:uploads&Token=2336412f37"
)

NOTIFICATION = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
CONFIRMATION = (
    "Message",
    "MessageId",
    "SubscribeURL",
    "Timestamp",
    "Token",
    "TopicArn",
    "Type",
)


@cache
def key(number: int = 0) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)


def certificate(number: int = 0, begins: int = -1, ends: int = 365) -> bytes:
    """PEM of a certificate that holds from one day to another, counted from now."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key(number).public_key())
        .serial_number(1)
        .not_valid_before(now + timedelta(days=begins))
        .not_valid_after(now + timedelta(days=ends))
    )
    return built.sign(key(number), hashes.SHA256()).public_bytes(Encoding.PEM)


def message(said: str, *, at: datetime | None = None, **fields: Any) -> dict[str, Any]:
    """A notification that says this, not signed yet."""
    moment = (at or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "Type": "Notification",
        "MessageId": str(uuid.uuid4()),
        "TopicArn": TOPIC,
        "Subject": "Amazon S3 Notification",
        "Message": said,
        "Timestamp": moment,
        "UnsubscribeURL": "https://sns.eu-west-1.amazonaws.com/?Action=Unsubscribe",
        **fields,
    }


def confirmation(**fields: Any) -> dict[str, Any]:
    """What SNS sends when somebody subscribes, not signed yet."""
    asked = message("You have chosen to subscribe ...", **fields)
    del asked["Subject"]
    named = {"Type": "SubscriptionConfirmation", "Token": "2336412f37", "SubscribeURL": CONFIRM}
    return asked | named | fields


def signed(said: dict[str, Any], version: str = "2", number: int = 0) -> dict[str, Any]:
    """The message as SNS signs it."""
    names = NOTIFICATION if said["Type"] == "Notification" else CONFIRMATION
    text = "".join(f"{name}\n{said[name]}\n" for name in names if name in said)
    algorithm = hashes.SHA256() if version == "2" else hashes.SHA1()
    signature = key(number).sign(text.encode(), padding.PKCS1v15(), algorithm)
    return said | {
        "SignatureVersion": version,
        "Signature": base64.b64encode(signature).decode(),
        "SigningCertURL": CERTIFICATE,
    }
