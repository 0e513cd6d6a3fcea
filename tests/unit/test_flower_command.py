"""Who may look, and what a watcher is told of the broker."""

import ssl
from typing import Any

import pytest
from typer.testing import CliRunner

from producer.cli import app
from producer.flower_command import check_login, watching
from producer.settings import ProducerSettings
from worker.request import shown


@pytest.mark.parametrize(
    ("environment", "address", "without", "refused"),
    [
        ({}, "127.0.0.1", False, "FLOWER_BASIC_AUTH"),
        ({}, "127.0.0.1", True, None),
        ({}, "0.0.0.0", True, "this machine alone"),
        ({"FLOWER_UNAUTHENTICATED_API": "1"}, "127.0.0.1", True, "shows alone"),
        ({"FLOWER_BASIC_AUTH": "a:b"}, "0.0.0.0", False, None),
        ({"FLOWER_BASIC_AUTH": "a:b,c:d"}, "0.0.0.0", False, None),
        ({"FLOWER_BASIC_AUTH": "a:"}, "127.0.0.1", False, "user:password"),
        ({"FLOWER_BASIC_AUTH": "a:b,"}, "127.0.0.1", False, "user:password"),
        ({"FLOWER_BASIC_AUTH": "a:b\u00e4"}, "127.0.0.1", False, "ASCII"),
        ({"FLOWER_BASIC_AUTH": ""}, "127.0.0.1", False, "FLOWER_BASIC_AUTH"),
        ({"FLOWER_AUTH": ".*@example[.]com"}, "0.0.0.0", False, None),
    ],
)
def test_given_an_address_and_logins_flower_starts_only_where_strangers_stay_out(
    environment: dict[str, str], address: str, without: bool, refused: str | None
) -> None:
    if refused is None:
        check_login(environment, address, without)
        return
    with pytest.raises(ValueError, match=refused):
        check_login(environment, address, without)


def test_given_no_login_the_command_ends_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOWER_BASIC_AUTH", raising=False)
    ended = CliRunner().invoke(app, ["flower"])
    assert ended.exit_code == 2
    assert "set FLOWER_BASIC_AUTH=user:password" in ended.output


def test_given_a_url_with_certificates_flowers_own_connection_has_them_too() -> None:
    url = "rediss://host:6379/0?ssl_cert_reqs=required&ssl_ca_certs=/ca.pem"
    watched = watching(ProducerSettings(), url)
    assert watched.conf.broker_use_ssl == {
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
        "ssl_ca_certs": "/ca.pem",
    }
    assert "captionq.caption.bulk" in {queue.name for queue in watched.conf.task_queues}


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("('s3://b/k.png',)", "('s3://b/k.png',)"),
        ("{'image': 'https://h/a?sig=1#f', 'b': 2}", "{'image': 'https://h/a', 'b': 2}"),
        ("https://h/a?sig=1, https://h/b?sig=2", "https://h/a https://h/b"),
        ("'https://u:p@h/a'", "'https://h/a'"),
        ("'https://u:p@p@h/a'", "'https://h/a'"),
        ("'data:image/png;base64,iVBORw0'", "'data:image/png'"),
        ("x" * 600, "x" * 499 + "…"),
    ],
)
def test_given_arguments_what_is_shown_has_no_secret(said: Any, left: str) -> None:
    assert shown(said) == left
