"""Units are read as systemd reads them, as far as docs/operations.md needs it."""

from pathlib import Path

import pytest

from tests import systemctl


@pytest.fixture
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(systemctl, "LINKS", tmp_path)
    monkeypatch.setattr(systemctl, "UNITS", (tmp_path,))
    return tmp_path


def test_given_a_template_its_instance_stands_where_the_unit_says(units: Path) -> None:
    (units / "w@.service").write_text("[Service]\nEnvironment=PORT=946%i\nExecStart=/w -n %i@%%h\n")
    unit = systemctl.Unit("w@1")
    assert unit.environment()["PORT"] == "9461"
    assert unit.one("ExecStart") == "/w -n 1@%h"


def test_given_a_drop_in_that_clears_a_command_only_its_own_is_left(units: Path) -> None:
    (units / "r.service").write_text("[Service]\nExecStart=/old\n")
    (units / "r.service.d").mkdir()
    (units / "r.service.d/x.conf").write_text(
        "[Service]\nExecStart=\nExecStart=/new --a \\\n  --b\n"
    )
    assert systemctl.expanded(systemctl.Unit("r").one("ExecStart"), {}) == ["/new", "--a", "--b"]


def test_given_environment_files_a_missing_one_is_passed_over_only_if_it_may_be(
    units: Path,
) -> None:
    (units / "env").write_text("# not this\nA=from=file\nB='two words'\n")
    (units / "a.service").write_text(
        "[Service]\nEnvironment=A=x C=y\n"
        f"EnvironmentFile={units}/env\nEnvironmentFile=-{units}/no\n"
    )
    (units / "b.service").write_text(f"[Service]\nEnvironmentFile={units}/no\n")
    found = systemctl.Unit("a").environment()
    assert (found["A"], found["B"], found["C"]) == ("from=file", "two words", "y")
    with pytest.raises(FileNotFoundError):
        systemctl.Unit("b").environment()


def test_given_variables_in_a_command_only_one_that_stands_alone_is_several_words() -> None:
    environment = {"ARGS": "--a --b", "ONE": "x y"}
    assert systemctl.expanded("-/p $ARGS --c=${ONE}", environment) == [
        "/p",
        "--a",
        "--b",
        "--c=x y",
    ]


def test_given_no_such_unit_it_is_said(units: Path) -> None:
    with pytest.raises(SystemExit, match=r"no\.service not found"):
        systemctl.Unit("no")
