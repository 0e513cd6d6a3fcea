"""Settings of the producing side."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from producer.settings import ProducerSettings


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
    ],
)
def test_values_that_cannot_be_used_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ProducerSettings(**wrong)
