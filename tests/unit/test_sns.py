"""Messages of SNS are told from all others."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.gateway.sns import (
    CONFIRM_URL,
    CertificateUnavailable,
    Forged,
    NotSns,
    SnsMessage,
    Unsigned,
    Verifier,
)
from tests.sns_messages import CERTIFICATE, CONFIRM, certificate, confirmation, message, signed

NOW = datetime.now(UTC)


class Certificates:
    """Those that are there; counts what was asked for."""

    def __init__(self, *pems: bytes | Exception) -> None:
        self.pems = list(pems or [certificate()])
        self.asked: list[str] = []

    async def fetch(self, url: str) -> bytes:
        self.asked.append(url)
        found = self.pems[min(len(self.asked), len(self.pems)) - 1]
        if isinstance(found, Exception):
            raise found
        return found


def read(said: dict[str, Any]) -> SnsMessage:
    return SnsMessage.read(json.dumps(said).encode())


async def verify(said: dict[str, Any], *pems: bytes | Exception) -> None:
    await Verifier(Certificates(*pems).fetch).verify(read(said), NOW)


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize(
    "said",
    [message("{}"), message("ü\n\n\tTopicArn\nx\n"), confirmation()],
    ids=["a notification", "one of several lines", "a subscription"],
)
async def test_given_what_sns_signed_then_it_passes(said: dict[str, Any], version: str) -> None:
    await verify(signed(said, version))


async def test_given_no_subject_then_there_is_none_in_what_is_signed() -> None:
    said = message("{}")
    del said["Subject"]

    await verify(signed(said))
    with pytest.raises(Forged):
        await verify(signed(said) | {"Subject": ""})


CHANGES: list[dict[str, Any]] = [
    {"Message": "{} "},
    {"MessageId": "another"},
    {"Subject": "another"},
    {"Timestamp": "2026-01-31T12:00:00.000Z"},
    {"TopicArn": "arn:aws:sns:eu-west-1:999999999999:theirs"},
    {"Signature": "AAAA"},
    {"Signature": "no base64!"},
    {"Signature": ""},
    {"SignatureVersion": "1"},
    {"SignatureVersion": "3"},
]


@pytest.mark.parametrize("change", CHANGES, ids=[str(one) for one in CHANGES])
async def test_given_a_message_that_was_changed_then_it_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Forged):
        await verify(signed(message("{}")) | change)


async def test_given_a_subscription_that_was_changed_then_it_is_refused() -> None:
    for change in ({"SubscribeURL": CONFIRM + "x"}, {"Token": "another"}):
        with pytest.raises(Forged):
            await verify(signed(confirmation()) | change)


async def test_given_somebody_elses_key_then_it_is_refused() -> None:
    with pytest.raises(Forged):
        await verify(signed(message("{}"), number=1))


@pytest.mark.parametrize("missing", ["Signature", "SignatureVersion", "SigningCertURL"])
async def test_given_no_signature_then_that_is_said(missing: str) -> None:
    said = signed(message("{}"))
    del said[missing]

    with pytest.raises(Unsigned):
        await verify(said)


ELSEWHERE = [
    "http://sns.eu-west-1.amazonaws.com/SimpleNotificationService-01.pem",
    "https://sns.eu-west-1.amazonaws.com.evil.example/SimpleNotificationService-01.pem",
    "https://evil.example/SimpleNotificationService-01.pem",
    "https://evil.example/?https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-01.pem",
    "https://sns.eu-west-1.amazonaws.com@evil.example/SimpleNotificationService-01.pem",
    "https://sns.eu-west-1.amazonaws.com:8443/SimpleNotificationService-01.pem",
    "https://sns.eu-west-1.amazonaws.com/other.pem",
    "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-01.pem?x=1",
    "https://sns.eu-west-1.amazonaws.com/a/../SimpleNotificationService-01.pem",
    "https://s3.eu-west-1.amazonaws.com/SimpleNotificationService-01.pem",
    "https://sns.amazonaws.com/SimpleNotificationService-01.pem",
    "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-01.pem\n",
    "https://SNS.eu-west-1.amazonaws.com/SimpleNotificationService-01.pem",
    "",
]


@pytest.mark.parametrize("url", ELSEWHERE)
async def test_given_a_certificate_elsewhere_then_it_is_not_even_asked_for(url: str) -> None:
    certificates = Certificates()

    with pytest.raises(Forged):
        await Verifier(certificates.fetch).verify(
            read(signed(message("{}")) | {"SigningCertURL": url}), NOW
        )
    assert certificates.asked == []


@pytest.mark.parametrize("url", ELSEWHERE[:8])
def test_confirmations_go_to_sns_alone(url: str) -> None:
    assert not CONFIRM_URL.fullmatch(f"{url}&Action=ConfirmSubscription")


def test_a_confirmation_of_sns_may_be_followed() -> None:
    assert CONFIRM_URL.fullmatch(CONFIRM)
    assert not CONFIRM_URL.fullmatch(CONFIRM.replace("ConfirmSubscription", "DeleteTopic"))
    assert not CONFIRM_URL.fullmatch(CONFIRM + "#")


async def test_given_several_messages_then_the_certificate_is_fetched_once() -> None:
    certificates = Certificates()
    verifier = Verifier(certificates.fetch)
    for number in range(5):
        await verifier.verify(read(signed(message(str(number)))), NOW)

    assert certificates.asked == [CERTIFICATE]


@pytest.mark.parametrize("days", [(-3, -1), (1, 3)], ids=["no more", "not yet"])
async def test_given_a_certificate_that_is_not_valid_now_then_it_is_refused(
    days: tuple[int, int],
) -> None:
    with pytest.raises(Forged, match="not valid now"):
        await verify(signed(message("{}")), certificate(0, *days))


async def test_given_a_certificate_that_is_not_to_be_had_then_it_is_asked_for_anew() -> None:
    certificates = Certificates(OSError("no route"), b"<html>", certificate())
    verifier = Verifier(certificates.fetch)
    for _ in range(2):
        with pytest.raises(CertificateUnavailable):
            await verifier.verify(read(signed(message("{}"))), NOW)

    await verifier.verify(read(signed(message("{}"))), NOW)


async def test_given_a_certificate_that_is_long_in_coming_then_others_are_not_held_up() -> None:
    never = asyncio.Event()

    async def fetch(url: str) -> bytes:
        if url != CERTIFICATE:
            await never.wait()
        return certificate()

    verifier = Verifier(fetch)
    await verifier.verify(read(signed(message("{}"))), NOW)
    slow = [
        asyncio.create_task(
            verifier.verify(read(signed(message("{}")) | {"SigningCertURL": url}), NOW)
        )
        for url in (CERTIFICATE.replace("0123", f"{n}") for n in range(5))
    ]
    await asyncio.sleep(0)

    await asyncio.wait_for(verifier.verify(read(signed(message("{}"))), NOW), 5)
    for task in slow:
        task.cancel()


async def test_given_many_certificates_then_a_bounded_number_is_kept() -> None:
    certificates = Certificates()
    verifier = Verifier(certificates.fetch)
    for number in [*range(40), 39, 0]:
        url = f"https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-{number}.pem"
        await verifier.verify(read(signed(message("{}")) | {"SigningCertURL": url}), NOW)

    assert len(certificates.asked) == 41  # the 40th is there, the first no more


def test_messages_are_fresh_for_a_while() -> None:
    def fresh(seconds: float) -> bool:
        return read(message("{}", at=NOW - timedelta(seconds=seconds))).fresh(NOW, 3_600)

    assert [fresh(age) for age in (0, 3_599, 3_601, -800, -1_000)] == [
        True,
        True,
        False,
        True,
        False,
    ]


def test_given_a_moment_that_is_none_then_it_is_refused() -> None:
    with pytest.raises(Forged):
        read(message("{}", Timestamp="yesterday")).fresh(NOW, 60)
    assert read(message("{}", Timestamp="2026-01-31T12:00:00")).at.tzinfo is UTC


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b"\xff", b'{"Type": "Other"}', json.dumps(message("x", Type=1)).encode()],
)
def test_given_no_message_of_sns_then_that_is_said(body: bytes) -> None:
    with pytest.raises(NotSns):
        SnsMessage.read(body)


@given(st.binary() | st.text().map(str.encode))
def test_given_any_bytes_then_they_are_read_or_refused(body: bytes) -> None:
    try:
        SnsMessage.read(body)
    except NotSns:
        return


@given(said=st.text(), change=st.text(), place=st.integers(0, 400))
async def test_given_any_text_then_what_is_signed_passes_and_nothing_else(
    said: str, change: str, place: int
) -> None:
    whole = signed(message(said))

    await verify(whole)
    text = said[:place] + change + said[place:]
    if text != said:
        with pytest.raises(Forged):
            await verify(whole | {"Message": text})
