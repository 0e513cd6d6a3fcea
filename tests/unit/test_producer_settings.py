"""Settings of the producing side."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from producer.settings import ProducerSettings
from producer.signing import new_key


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in ProducerSettings.model_fields:
        monkeypatch.delenv(f"CAPTIONQ_{field.upper()}", raising=False)


def test_everything_has_a_default_and_says_what_it_is() -> None:
    settings = ProducerSettings()

    assert settings.broker_url is None
    assert settings.home == Path.home() / ".captionq"
    assert all(field.description for field in ProducerSettings.model_fields.values())


def test_the_environment_sets_and_an_empty_value_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTIONQ_BROKER_URL", "redis://broker:6379/0")
    monkeypatch.setenv("CAPTIONQ_RESULTS_URL", "")
    monkeypatch.setenv("CAPTIONQ_RESULT_TTL_S", "60")

    settings = ProducerSettings()

    assert settings.broker_url == "redis://broker:6379/0"
    assert settings.results_url is None
    assert settings.result_ttl_s == 60


@pytest.mark.parametrize(
    ("results_url", "broker_url", "beside"),
    [
        (None, "redis://broker/0", "redis://broker/0"),
        (None, "rediss://broker/0", "rediss://broker/0"),
        ("redis://results/0", "redis://broker/0", "redis://results/0"),
        ("redis://results/0", "amqp://broker//", "redis://results/0"),
    ],
)
def test_results_lie_beside_a_redis_broker_unless_set(
    results_url: str | None, broker_url: str, beside: str
) -> None:
    settings = ProducerSettings(results_url=results_url)

    assert settings.results_url_beside(broker_url) == beside


@pytest.mark.parametrize(
    "wrong",
    [
        {"results_url": "amqp://results//"},
        {"result_ttl_s": 0},
        {"submit_timeout_s": -1},
        {"upload_url": "https://example.com/"},
        {"upload_url": "s3://"},
        {"signing_keys": "a:c2hvcnQ="},
        {"signing_keys": " "},
    ],
)
def test_values_that_cannot_be_used_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ProducerSettings(**wrong)


def test_given_keys_then_they_are_read_and_what_they_are_is_never_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = new_key("a")
    secret = key.partition(":")[2]
    monkeypatch.setenv("CAPTIONQ_SIGNING_KEYS", key)

    settings = ProducerSettings()

    assert settings.keys is not None
    assert settings.keys.ids == ("a",)
    shown = [repr(settings), str(settings), repr(settings.model_dump()), settings.model_dump_json()]
    assert not any(secret in text for text in shown)
    assert ProducerSettings(signing_keys=None).keys is None


@pytest.mark.parametrize(
    "also_wrong",
    [{"CAPTIONQ_SIGNING_KEYS": "a:{secret},a:{secret}"}, {"CAPTIONQ_RESULT_TTL_S": "0"}],
)
def test_given_a_wrong_setting_then_the_error_does_not_show_the_keys(
    monkeypatch: pytest.MonkeyPatch, also_wrong: dict[str, str]
) -> None:
    key = new_key("a")
    secret = key.partition(":")[2]
    for name, value in ({"CAPTIONQ_SIGNING_KEYS": key} | also_wrong).items():
        monkeypatch.setenv(name, value.replace("{secret}", secret))

    with pytest.raises(ValidationError) as error:
        ProducerSettings()

    told = str(error.value) + repr(error.value)
    assert not any(secret[at : at + 6] in told for at in range(len(secret) - 5))
