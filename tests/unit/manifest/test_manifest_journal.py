"""The journal of a run: whatever is cut off, what it says of what is done is true."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from producer.manifest.journal import CannotResume, Journal, LeftOut

DIGEST = "00000000000000ff"


def written(path: Path, chunks: int = 4) -> list[bytes]:
    """A journal in which every second chunk is done; its lines."""
    path.unlink(missing_ok=True)
    with Journal(path) as journal:
        journal.begin("run", {"chunk": 64}, [None, "print"])
        for number in range(chunks):
            journal.sent(number, f"{number:016x}", LeftOut(bad=number, skipped=2**63))
            if number % 2:
                journal.done([number], 100 * number, {"succeeded": 60, "http_4xx": 2})
    return path.read_bytes().splitlines(keepends=True)


def test_given_a_journal_then_what_was_noted_is_known_again(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    written(path)

    with Journal(path) as journal:
        past = journal.past

    assert (past.run, past.plan, past.sources) == ("run", {"chunk": 64}, [None, "print"])
    assert (past.sent, past.chunks_done, past.end, past.ended) == (4, 2, 300, False)
    assert [past.is_done(number) for number in range(5)] == [False, True, False, True, False]
    assert past.counts == Counter(succeeded=120, http_4xx=4)
    assert past.left_out(2) == LeftOut(2, 2**63)
    assert past.same(3, f"{3:016x}")
    assert not past.same(3, DIGEST)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 2_000))
def test_given_a_journal_cut_anywhere_then_its_whole_lines_count(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "journal"
    lines = written(path)
    text = b"".join(lines)[:cut]
    path.write_bytes(text)
    whole = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith(b"\n")]

    with Journal(path) as journal:
        assert journal.begun == bool(whole)
        assert journal.past.sent == sum("sent" in line for line in whole)
        assert journal.past.chunks_done == sum("done" in line for line in whole)
        if not whole:
            journal.begin("another", {}, [])
        journal.sent(journal.past.sent, DIGEST, LeftOut())

    with Journal(path) as journal:
        assert journal.past.same(sum("sent" in line for line in whole), DIGEST)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param('{"sent":0,"digest":"00","bad":"0","skipped":"0"}', id="sent twice"),
        pytest.param('{"done":[9],"end":1,"counts":{}}', id="done and never sent"),
        pytest.param('{"journal":1,"run":"r","plan":{},"sources":[]}', id="a second head"),
        pytest.param("not json", id="no JSON"),
        pytest.param("[]", id="no object"),
        pytest.param("{}", id="nothing"),
    ],
)
def test_given_a_line_that_cannot_be_then_the_journal_is_refused_and_left_alone(
    tmp_path: Path, line: str
) -> None:
    path = tmp_path / "journal"
    count = len(written(path))
    with path.open("a") as file:
        file.write(line + "\n")
    before = path.read_bytes()

    with pytest.raises(CannotResume, match=f"damaged at line {count + 1}"):
        Journal(path)
    assert path.read_bytes() == before


def test_given_a_file_that_is_no_journal_then_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine\n")

    with pytest.raises(CannotResume, match="is no journal"):
        Journal(path)
    assert path.read_text() == "mine\n"


@pytest.mark.parametrize("text", ['{"mine": 1}', '{"journ', "x", '{"journal":1,"run":"r'])
def test_given_one_line_without_an_end_then_only_the_beginning_of_a_journal_is_taken_for_one(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "notes.json"
    path.write_text(text)

    if text.startswith('{"journ'):
        with Journal(path) as journal:
            assert not journal.begun
    else:
        with pytest.raises(CannotResume, match="is no journal"):
            Journal(path)
        assert path.read_text() == text


def test_given_an_open_journal_then_no_other_run_can_have_it(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path) as journal:
        journal.begin("run", {}, [])
        with pytest.raises(CannotResume, match="Another process writes"):
            Journal(path)
    Journal(path).close()


def test_given_a_journal_in_which_nothing_was_begun_then_no_file_is_left(tmp_path: Path) -> None:
    Journal(tmp_path / "journal").close()

    assert not (tmp_path / "journal").exists()
