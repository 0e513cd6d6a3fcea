"""What callbacks are signed with: read, named, and never shown."""

import base64
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook

from worker.callbacks.secrets import Secrets, UnknownSecret, may_sign
from worker.settings import SettingsError, load_settings

AT = datetime(2026, 1, 31, tzinfo=UTC)


def whsec(length: int = 32, byte: int = 7) -> str:
    return "whsec_" + base64.b64encode(bytes([byte]) * length).decode()


def test_a_message_is_signed_by_every_secret_of_its_id_as_the_library_verifies_it() -> None:
    old, new = whsec(24), whsec(64, 8)
    secrets = Secrets.parse(f"a:{old}, a:{new},b:{whsec()}")
    now = datetime.now(UTC)

    headers = secrets.headers("a", "", "msg_1", now, b'{"x":"\xc3\xa9"}')

    assert secrets.ids == ("a", "a", "b")
    assert headers["webhook-timestamp"] == str(int(now.timestamp()))
    assert len(headers["webhook-signature"].split(" ")) == 2
    for one in (old, new):
        assert Webhook(one).verify('{"x":"é"}', headers) == {"x": "é"}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no secret"),
        (f"{whsec()}", "secret 1 is not ID:whsec_BASE64"),
        (f"a:{whsec().removeprefix('whsec_')}", "secret 1 is not ID"),
        (f"a:{whsec()},b b:{whsec()}", "secret 2 is not ID"),
        ("a:whsec_!!!!", "secret 1 is not Base64"),
        (f"a:{whsec(23)}", "secret 1 has 23 bytes, not 24 to 64"),
        (f"a:{whsec(65)}", "secret 1 has 65 bytes"),
    ],
)
def test_what_is_no_secret_is_told_by_its_place_and_not_by_what_it_is(
    text: str, fault: str
) -> None:
    with pytest.raises(ValueError, match=fault) as told:
        Secrets.parse(text)
    assert "BwcH" not in str(told.value)


def test_a_secret_signs_for_its_owner_and_the_default_one_for_all() -> None:
    secrets = Secrets.parse(f"web:{whsec()},web.old:{whsec()},default:{whsec()}")

    for owner, secret_id in {"web": "web.old", "mail": "default", "": "web"}.items():
        assert secrets.headers(secret_id, owner, "msg_1", AT, b"{}")
    for owner, secret_id in {"mail": "web", "we": "web", "": "never"}.items():
        with pytest.raises(UnknownSecret):
            secrets.headers(secret_id, owner, "msg_1", AT, b"{}")
    assert not may_sign("web", "web.old")


def test_given_secrets_in_the_environment_then_settings_show_their_ids_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CAPTIONQ_CALLBACK_SECRETS", f"a:{whsec()}")
    settings = load_settings()
    assert settings.shown("callback_secrets") == "a:***"
    assert "BwcH" not in repr(settings) + str(settings.model_dump())

    monkeypatch.setenv("CAPTIONQ_CALLBACK_SECRETS", "a:whsec_BwcHBwcH")
    with pytest.raises(SettingsError, match=r"CAPTIONQ_CALLBACK_SECRETS: .*6 bytes") as refused:
        load_settings()
    assert "BwcH" not in str(refused.value)

    monkeypatch.delenv("CAPTIONQ_CALLBACK_SECRETS")
    assert load_settings().signers is None
