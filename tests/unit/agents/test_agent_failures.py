"""What agents are told of failures."""

import pytest
from pydantic import ValidationError

from producer import BrokerUnavailable, CaptionJob, JobFailed
from producer.agents.failures import told
from producer.agents.jobs import NoAnswer
from producer.contract import ErrorCode
from producer.errors import BrokerFull
from producer.index.table import NoIndex
from producer.manifest.parquet import NotInstalled
from producer.remedies import REMEDIES


def test_there_is_a_remedy_for_every_code() -> None:
    assert set(REMEDIES) == set(ErrorCode)
    for remedy in REMEDIES.values():
        assert remedy[0].isupper()
        assert remedy.endswith(".")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (JobFailed(ErrorCode.HTTP_4XX), "http_4xx", "Check the address"),
        (NoAnswer(50, "queued"), "timeout", "within 50 s; the job was queued. What to do: Try"),
        (BrokerFull("Redis is full."), "broker_full", "when workers have taken some"),
        (BrokerUnavailable("No Redis."), "broker_unavailable", "CAPTIONQ_BROKER_URL"),
        (NoIndex("/index"), "index_missing", "captionq index build"),
        (NotInstalled("pip install lancedb"), "not_installed", "pip install"),
        (ValueError("'x' lies outside."), "input_invalid", "lies outside"),
    ],
)
def test_given_an_error_that_was_to_be_expected_then_its_code_comes_first_and_a_remedy_follows(
    error: Exception, code: str, words: str
) -> None:
    said = told(error)
    assert said is not None
    assert said.startswith(f"{code}: ")
    assert words in said


def test_given_a_job_that_cannot_be_made_then_the_field_is_named_and_not_what_it_held() -> None:
    with pytest.raises(ValidationError) as raised:
        CaptionJob(image="ftp://secret/")
    said = told(raised.value)
    assert said is not None
    assert said.startswith("job_invalid: image: ")
    assert "secret" not in said


def test_given_a_fault_then_nothing_of_it_is_shown() -> None:
    assert told(KeyError("/home/me/secret")) is None
