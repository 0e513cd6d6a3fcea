"""The worker's settings: read from the environment, checked across fields, told to operators."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from producer.signing import new_key
from worker.cli import cli
from worker.settings import SettingsError, WorkerSettings, load_settings


@pytest.mark.parametrize(
    ("environment", "fault"),
    [
        pytest.param({"MAX_BATCH": "0"}, "CAPTIONQ_MAX_BATCH", id="out of range"),
        pytest.param({"MAX_BATCH": "many"}, "CAPTIONQ_MAX_BATCH", id="no number"),
        pytest.param({"MEMORY_FRACTION": "1.5"}, "CAPTIONQ_MEMORY_FRACTION", id="over one"),
        pytest.param({"DEVICE": "tpu"}, "CAPTIONQ_DEVICE", id="no such device"),
        pytest.param({"DEVICE": "cpu", "DTYPE": "float16"}, "float16", id="float16 on CPU"),
        pytest.param({"DEVICE": "cuda:0", "DTYPE": "int8"}, "int8", id="int8 on CUDA"),
        pytest.param(
            {"CAPTION_MODEL": "none", "MATCH_MODEL": "none"}, "nothing to serve", id="no model"
        ),
        pytest.param({"FILE_ROOT": "/no/such/folder"}, "FILE_ROOT", id="no folder"),
        pytest.param(
            {"SHUTDOWN_TIMEOUT_S": "100"}, "more than FETCH_TIMEOUT_S", id="no time for a last job"
        ),
        pytest.param(
            {"BATCH_TIMEOUT_S": "90"}, "less than INFER_TIMEOUT_S", id="jobs give up a hang first"
        ),
        pytest.param(
            {"IMAGE_FORMATS": "JPEG,TIFF"}, "TIFF is not accepted; .*JPEG, PNG", id="TIFF"
        ),
        pytest.param({"IMAGE_FORMATS": " ,"}, "nothing is not accepted", id="no format"),
        pytest.param({"ALPHA": "black"}, "CAPTIONQ_ALPHA", id="no such ground"),
        pytest.param({"MAX_SIDE": "0"}, "CAPTIONQ_MAX_SIDE", id="no side"),
        pytest.param({"MAX_JPEG_SCANS": "0"}, "CAPTIONQ_MAX_JPEG_SCANS", id="no scan"),
        pytest.param({"FETCH_PROXY": "proxy:3128"}, "FETCH_PROXY", id="no proxy's URL"),
        pytest.param({"MAX_PER_HOST": "0"}, "MAX_PER_HOST", id="nothing from any host"),
        pytest.param({"S3_REQUEST_PAYER": "me"}, "S3_REQUEST_PAYER", id="no one who pays"),
        pytest.param({"SINK_ALLOW": "s3://bucket/prefix"}, "SINK_ALLOW", id="no folder of a sink"),
        pytest.param(
            {"SINK_ALLOW": "s3://bucket/", "SINK_TIMEOUT_S": "140"},
            "SINK_TIMEOUT_S, if longer",
            id="no time for a last shard",
        ),
        pytest.param({"PACKS": "packs/,s3://bucket/prefix"}, "not s3://bucket/prefix", id="key"),
        pytest.param(
            {"PACKS": "https://example.com/"}, "PACKS has folders", id="no place of packs"
        ),
        pytest.param({"PACKS_PINNED": "de,../x"}, "PACKS_PINNED", id="no name of a pack"),
        pytest.param({"PACKS_LOADED": "0"}, "PACKS_LOADED", id="no room for packs"),
        pytest.param({"BASE_LANGUAGE": "English language"}, "BASE_LANGUAGE", id="no language tag"),
        pytest.param({"VISIBILITY_TIMEOUT_S": "1"}, "VISIBILITY_TIMEOUT_S", id="a hasty lease"),
    ],
)
def test_given_a_wrong_setting_the_error_names_it(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], fault: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(f"CAPTIONQ_{name}", value)
    with pytest.raises(SettingsError, match=fault):
        load_settings()


def test_given_none_for_a_model_its_task_is_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTIONQ_MATCH_MODEL", "none")
    assert set(load_settings().models) == {"caption"}


def test_given_no_concurrency_it_is_two_batches_of_either_lane(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert load_settings().threads(4) == 32
    assert load_settings().threads(24) == 96
    assert load_settings().threads(1024) == 512
    monkeypatch.setenv("CAPTIONQ_CONCURRENCY", "7")
    assert load_settings().threads(24) == 7


def test_given_no_bulk_slots_they_are_two_batches_and_at_most_half_the_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = load_settings()
    assert settings.bulk_slots_of(settings.threads(24), 24) == 48
    assert settings.bulk_slots_of(settings.threads(4), 4) == 8
    assert settings.bulk_slots_of(9, 24) == 4
    assert settings.bulk_slots_of(1, 24) == 1
    monkeypatch.setenv("CAPTIONQ_BULK_SLOTS", "7")
    assert load_settings().bulk_slots_of(9, 24) == 7


@pytest.mark.parametrize(("said", "expected"), [(None, "auto"), ("auto", "auto"), ("24", 24)])
def test_the_batch_is_measured_unless_a_number_is_set(
    monkeypatch: pytest.MonkeyPatch, said: str | None, expected: str | int
) -> None:
    if said:
        monkeypatch.setenv("CAPTIONQ_MAX_BATCH", said)
    assert load_settings().max_batch == expected


def test_given_no_warm_up_the_batch_must_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTIONQ_WARMUP", "false")
    with pytest.raises(SettingsError, match="MAX_BATCH=auto"):
        load_settings()
    monkeypatch.setenv("CAPTIONQ_MAX_BATCH", "8")
    assert load_settings().max_batch == 8


def test_every_setting_says_what_it_means() -> None:
    for name, field in WorkerSettings.model_fields.items():
        assert field.description, name
        if name.endswith(("_s", "_ms")):
            assert "second" in field.description, f"{name} does not say its unit"


def test_given_a_password_in_a_url_printing_the_settings_hides_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "worker.cli", "settings", "--json"],
        env={"CAPTIONQ_BROKER_URL": "redis://:hunter2@localhost:1/0", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = {row["variable"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert rows["CAPTIONQ_BROKER_URL"]["value"] == "redis://***@localhost:1/0"
    assert set(rows) == {f"CAPTIONQ_{name.upper()}" for name in WorkerSettings.model_fields}


def test_given_keys_printing_the_settings_tells_their_ids_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = [new_key("2026b"), new_key("2026a")]
    monkeypatch.setenv("CAPTIONQ_SIGNING_KEYS", ",".join(keys))
    for words in (["settings"], ["settings", "--json"]):
        shown = CliRunner().invoke(cli, words).stdout
        assert "2026b:***,2026a:***" in shown
        assert not any(key.partition(":")[2] in shown for key in keys)
    assert load_settings().verifier is not None
    monkeypatch.delenv("CAPTIONQ_SIGNING_KEYS")
    assert load_settings().verifier is None
    assert load_settings().shown("signing_keys") == ""


def test_given_wrong_keys_the_error_names_the_setting_and_shows_none_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CAPTIONQ_SIGNING_KEYS", "a:c2hvcnQ=")
    with pytest.raises(SettingsError, match=r"CAPTIONQ_SIGNING_KEYS: .*key 1 has 5 bytes") as error:
        load_settings()
    assert "c2hvcnQ" not in str(error.value) + repr(error.value.__cause__)


def test_given_a_narrow_terminal_the_table_still_shows_every_name_and_value_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("CAPTIONQ_FETCH_ALLOW", "[fd00::/8]:*")
    shown = CliRunner().invoke(cli, ["settings"]).stdout
    rows = [[cell.strip() for cell in line.split("│")] for line in shown.splitlines()]
    names = {f"CAPTIONQ_{name.upper()}" for name in WorkerSettings.model_fields}
    assert names <= {row[1] for row in rows if len(row) > 1}
    assert "[fd00::/8]:*" in shown
    assert "…" not in shown
