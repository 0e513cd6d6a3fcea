"""Signed jobs: which keys there are, what they sign, what is refused."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.contract import (
    MAX_MESSAGE_BYTES,
    CaptionJob,
    CaptionOptions,
    ErrorCode,
    Job,
    JobFailed,
    MatchJob,
)
from producer.signing import BadSignature, Keys, Unsignable, Verifier, canonical, new_key
from producer.submission import prepared

DOCS = (Path(__file__).parents[2] / "docs/security.md").read_text()
NOW_S = 1_767_225_600
SECRET = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
OTHER = base64.b64encode(b"fedcba9876543210fedcba9876543210").decode()
KEYS = Keys.parse(f"2026b:{SECRET},2026a:{OTHER}")
JOB: dict[str, Any] = {
    "job_id": "photo-17",
    "image": "https://example.com/cat.jpg",
    "options": {"num_beams": 3, "length_penalty": 1.5},
}


def signed(job: dict[str, Any] = JOB, keys: Keys = KEYS, at_s: float = NOW_S) -> dict[str, Any]:
    return job | {"signature": keys.sign("caption", job, at_s)}


def verifier(keys: Keys = KEYS, now_s: float = NOW_S) -> Verifier:
    return Verifier(keys, max_age_s=3_600, clock_s=lambda: now_s)


# Keys


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param("", "holds no key", id="nothing"),
        pytest.param(" , ", "holds no key", id="commas"),
        pytest.param(SECRET, "key 1 is not ID:BASE64", id="no id"),
        pytest.param(f":{SECRET}", "key 1 is not ID:BASE64", id="an empty id"),
        pytest.param("a:", "key 1 is not ID:BASE64", id="no key"),
        pytest.param(f"a.b:{SECRET}", "key 1 is not ID:BASE64", id="a dot in the id"),
        pytest.param(f"{'a' * 33}:{SECRET}", "key 1 is not ID:BASE64", id="a long id"),
        pytest.param(f"a:{SECRET},b:???", "key 2 is not Base64", id="no Base64"),
        pytest.param(f"a:{'ä' * 44}", "key 1 is not Base64", id="not even ASCII"),
        pytest.param(f"a:{SECRET[:-1]}", "key 1 is not Base64", id="cut off"),
        pytest.param(f"a:{SECRET},a:{OTHER}", "key 2 has the ID", id="an id twice"),
        pytest.param("a:c2hvcnQ=", "key 1 has 5 bytes; 32", id="short"),
    ],
)
def test_given_wrong_keys_then_the_error_tells_the_place_and_nothing_of_the_key(
    text: str, fault: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(fault)) as error:
        Keys.parse(text)
    assert error.value.__cause__ is None
    for part in (SECRET, SECRET[:-1], OTHER, "c2hvcnQ=", "???"):
        assert part not in str(error.value)


def test_given_keys_then_their_ids_are_shown_in_order_and_nothing_else() -> None:
    assert KEYS.ids == ("2026b", "2026a")
    for shown in (repr(KEYS), str(KEYS), repr(verifier())):
        assert "0123456789abcdef" not in shown
        assert SECRET not in shown


def test_given_a_new_key_then_it_is_one_and_another_each_time() -> None:
    assert Keys.parse(new_key("a")).ids == ("a",)
    assert new_key("a") != new_key("a")
    with pytest.raises(ValueError, match="not ID:BASE64"):
        new_key("no id")


# What is signed


@pytest.mark.parametrize(
    "job",
    [
        CaptionJob(image="https://example.com/katzenöhr.jpg", regions=((0, 0, 9, 9),)),
        CaptionJob(
            image="s3://photos/a.png",
            options=CaptionOptions(do_sample=True, temperature=1e-2, seed=2**53 - 1),
        ),
        MatchJob(image="file:///a.png", texts=('a "cat"\n', "ein Kätzchen 🐈"), job_id="a/b@c"),
    ],
)
def test_given_a_job_that_a_client_signs_then_its_message_and_its_record_both_verify(
    job: Job,
) -> None:
    sent = prepared(job, KEYS)
    verify = Verifier(KEYS)
    message = json.loads(json.dumps(sent.model_dump(mode="json")))
    record = json.loads(sent.model_dump_json())
    for came in (message, record):
        assert verify.verified(job.task, str(sent.job_id), came) == came
    again = prepared(sent, KEYS)
    assert again.signature != sent.signature, "of another moment, hence another signature"


@given(st.floats(-10, 10), st.floats(0.01, 100), st.floats(0, 1))
def test_given_any_numbers_then_messages_and_records_are_the_same_json(
    length_penalty: float, temperature: float, top_p: float
) -> None:
    options = CaptionOptions(
        do_sample=True, length_penalty=length_penalty, temperature=temperature, top_p=top_p
    )
    job = CaptionJob(image="https://example.com/a.png", options=options)
    assert canonical(json.loads(job.model_dump_json())) == canonical(job.model_dump(mode="json"))


def test_given_no_keys_then_nothing_is_signed_and_an_old_signature_is_left_out() -> None:
    job = CaptionJob(image="https://example.com/a.png")
    assert prepared(job).signature is None
    assert prepared(prepared(job, KEYS)).signature is None


def test_given_a_number_that_cannot_be_signed_then_the_job_is_refused_at_once() -> None:
    job = CaptionJob(
        image="https://example.com/a.png", options=CaptionOptions(do_sample=True, top_k=2**53)
    )
    assert prepared(job).signature is None
    with pytest.raises(JobFailed, match="cannot be signed") as failure:
        prepared(job, KEYS)
    assert failure.value.code is ErrorCode.JOB_INVALID


def test_given_a_job_that_its_signature_makes_too_large_then_it_is_refused() -> None:
    def job(last: int) -> MatchJob:
        texts = ("a" * 2_000,) * 32 + ("a" * last,)
        return MatchJob(job_id="a", image="https://example.com/a.png", texts=texts)

    spare = MAX_MESSAGE_BYTES - len(prepared(job(1)).model_dump_json())
    assert 90 < spare < 2_000, "the last text takes all that is left"
    assert prepared(job(spare)).signature is None
    with pytest.raises(JobFailed, match="bytes of JSON"):
        prepared(job(spare), KEYS)


# What is refused


@pytest.mark.parametrize(
    "came",
    [
        pytest.param(signed(), id="as it was signed"),
        pytest.param(dict(reversed(list(signed().items()))), id="in another order"),
        pytest.param(signed(keys=Keys.parse(f"2026a:{OTHER}")), id="by the other key"),
        pytest.param(signed(at_s=NOW_S - 3_600), id="as old as may be"),
        pytest.param(signed(at_s=NOW_S + 300), id="by a clock that is ahead"),
    ],
)
def test_given_a_genuine_job_then_it_is_verified(came: dict[str, Any]) -> None:
    assert verifier().verified("caption", "photo-17", came) == came


def _with_mac(mac: str) -> dict[str, Any]:
    return JOB | {"signature": f"v1.2026b.{NOW_S}.{mac}"}


MAC = signed()["signature"].rpartition(".")[2]


@pytest.mark.parametrize(
    ("came", "reason"),
    [
        pytest.param(JOB, "not signed", id="unsigned"),
        pytest.param(JOB | {"signature": None}, "not signed", id="null"),
        pytest.param(JOB | {"signature": ""}, "not v1", id="empty"),
        pytest.param(_with_mac(MAC.upper()), "not v1", id="upper case"),
        pytest.param(_with_mac(MAC[:-1]), "not v1", id="cut off"),
        pytest.param(_with_mac(MAC + "\n"), "not v1", id="a line feed more"),
        pytest.param(_with_mac("0" * 64), "is wrong", id="a guess"),
        pytest.param(
            JOB | {"signature": f"v2.2026b.{NOW_S}.{MAC}"}, "not v1", id="another version"
        ),
        pytest.param(
            JOB | {"signature": f"v1.2026a.{NOW_S}.{MAC}"}, "is wrong", id="under another key's id"
        ),
        pytest.param(
            JOB | {"signature": f"v1.2026b.{NOW_S + 1}.{MAC}"}, "is wrong", id="another moment"
        ),
        pytest.param(
            JOB | {"signature": f"v1.2026b.{'٣' * 9}.{MAC}"}, "not v1", id="digits of other scripts"
        ),
        pytest.param(
            signed(keys=Keys.parse(f"x:{SECRET}")), "x, which is no key", id="unknown key"
        ),
        pytest.param(signed(keys=Keys.parse(f"2026b:{OTHER}")), "is wrong", id="wrong key"),
        pytest.param(signed(at_s=NOW_S - 3_601), "signed 3601 s ago", id="expired"),
        pytest.param(signed(at_s=NOW_S + 301), "301 s from now", id="from the future"),
        pytest.param(signed() | {"image": "https://example.com/dog.jpg"}, "is wrong", id="altered"),
        pytest.param(signed() | {"mode": "stretch"}, "is wrong", id="a default filled in"),
        pytest.param(signed() | {"options": {"num_beams": 3}}, "is wrong", id="a field less"),
        pytest.param(signed() | {"job_id": "photo-18"}, "does not carry the id", id="another id"),
        pytest.param(
            signed(JOB | {"job_id": "photo-18"}), "does not carry the id", id="another's, genuine"
        ),
        pytest.param(signed() | {"mode": 2**53}, "cannot be spelled", id="a number too large"),
        pytest.param(signed() | {"mode": "\ud83d"}, "cannot be spelled", id="half a character"),
        pytest.param(signed() | {"mode": float("nan")}, "cannot be spelled", id="no number"),
        pytest.param(signed() | {"mode": b"bytes"}, "cannot be spelled", id="bytes, by kombu"),
        pytest.param("photo-17", "no job", id="text"),
        pytest.param(None, "no job", id="nothing"),
    ],
)
def test_given_a_job_that_no_key_signed_so_then_it_is_refused_with_the_reason(
    came: Any, reason: str
) -> None:
    with pytest.raises(BadSignature, match=reason):
        verifier().verified("caption", "photo-17", came)


def test_given_a_genuine_job_then_it_is_none_of_another_task() -> None:
    with pytest.raises(BadSignature, match="is wrong"):
        verifier().verified("match", "photo-17", signed())
    with pytest.raises(BadSignature, match="no job"):
        verifier().verified("segment", "photo-17", signed())


def test_given_a_job_without_an_id_then_it_is_not_run_under_celerys() -> None:
    job = {name: JOB[name] for name in JOB if name != "job_id"}
    mac = KEYS.mac("2026b", "caption", "celery-id", str(NOW_S), canonical(job))
    with pytest.raises(BadSignature, match="does not carry the id"):
        verifier().verified("caption", "celery-id", job | {"signature": f"v1.2026b.{NOW_S}.{mac}"})


def test_given_nesting_without_end_then_it_is_refused() -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(Unsignable):
        verifier().verified("caption", "photo-17", signed() | {"mode": deep})


def test_given_a_number_in_another_spelling_then_it_is_used_as_it_was_signed() -> None:
    came = signed() | {"options": {"num_beams": 3.0, "length_penalty": 1.5}}
    options = verifier().verified("caption", "photo-17", came)["options"]
    assert repr(options["num_beams"]) == "3"


def test_given_a_key_that_is_taken_away_then_what_it_signed_is_refused() -> None:
    old, new = f"2026a:{OTHER}", f"2026b:{SECRET}"
    came = signed(keys=Keys.parse(old))
    for keys in (old, f"{old},{new}", f"{new},{old}"):
        assert verifier(Keys.parse(keys)).verified("caption", "photo-17", came) == came
    with pytest.raises(BadSignature, match="no key of this worker's"):
        verifier(Keys.parse(new)).verified("caption", "photo-17", came)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(_JSON | st.from_regex(r"v1\.2026b\.[0-9]{1,12}\.[0-9a-f]{64}"))
def test_given_any_json_for_a_signature_then_it_is_refused(signature: Any) -> None:
    with pytest.raises(BadSignature):
        verifier().verified("caption", "photo-17", JOB | {"signature": signature})


@given(st.dictionaries(st.text(max_size=9) | st.sampled_from(sorted(JOB)), _JSON, min_size=1))
def test_given_any_other_fields_with_a_genuine_signature_then_they_are_refused(
    fields: dict[str, Any],
) -> None:
    came = signed() | fields | {"signature": signed()["signature"]}
    try:
        same = canonical(came) == canonical(JOB)
    except Unsignable:
        same = False
    if not same:
        with pytest.raises(BadSignature):
            verifier().verified("caption", "photo-17", came)


# The example of docs/security.md


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)\n```$", DOCS, re.MULTILINE | re.DOTALL)


def _example() -> tuple[str, dict[str, Any], str, str]:
    key, text, signature = _blocks("text")
    (job,) = _blocks("json")
    return key, json.loads(job), text, signature


def test_given_the_documented_example_then_it_is_signed_as_the_document_says() -> None:
    key, job, text, signature = _example()
    assert Keys.parse(key).sign("caption", job, NOW_S) == signature
    assert canonical(job).decode() == text.splitlines()[-1]
    came = job | {"signature": signature}
    assert verifier(Keys.parse(key)).verified("caption", "photo-17", came) == came


def test_given_the_documented_text_when_openssl_signs_it_the_signature_is_the_documents() -> None:
    """By other code than ours: that the text is what is signed."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command")
    key, _, text, signature = _example()
    secret = base64.b64decode(key.partition(":")[2]).hex()
    done = subprocess.run(
        [openssl, "dgst", "-sha256", "-mac", "HMAC", "-macopt", f"hexkey:{secret}"],
        input=text.encode(),
        capture_output=True,
        check=True,
    )
    assert signature.rpartition(".")[2] in done.stdout.decode()


def test_given_the_documented_javascript_when_it_signs_then_the_job_is_verified() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs Node.js")
    key, job, _, signature = _example()
    odd = job | {
        "job_id": "ö/1",
        "é": 1e21,
        "\U0001f408": [1e-7, -0.0, None],
        "z": {"b": "\n\u2028"},
    }
    (script,) = _blocks("js")
    calls = "".join(
        f"\nconsole.log(JSON.stringify(sign('captionq.caption', {json.dumps(one)}, "
        f"{json.dumps(key)}, {NOW_S})));"
        for one in (job, odd)
    )
    done = subprocess.run(
        [node, "-e", script + calls], capture_output=True, check=True, encoding="utf-8"
    )
    first, second = map(json.loads, done.stdout.strip().split("\n"))
    assert first["signature"] == signature
    assert verifier(Keys.parse(key)).verified("caption", "ö/1", second)
