"""Files are taken once they are complete, each content once."""

from pathlib import Path

from producer.listen.settling import Settling, Stamp

CAT, DOG = Path("/in/cat.jpg"), Path("/in/dog.jpg")


class Files:
    """What stands on a disk that is not there."""

    def __init__(self) -> None:
        self.stamps: dict[Path, Stamp] = {}

    def write(self, path: Path, size: int, moment: int) -> None:
        self.stamps[path] = Stamp(size, moment)

    def look(self, path: Path) -> Stamp | None:
        return self.stamps.get(path)


def test_given_a_file_that_grows_then_it_is_taken_when_it_has_been_left_alone() -> None:
    files = Files()
    settling = Settling(1.0, files.look)
    for second in range(3):
        files.write(CAT, 100 * (second + 1), second)
        settling.changed(CAT, second)
        assert settling.settled(second + 0.5) == []

    assert settling.settled(2.9) == []
    assert settling.settled(3.0) == [(CAT, Stamp(300, 2))]
    assert settling.settled(9.0) == []
    assert len(settling) == 0


def test_given_a_change_that_nobody_told_of_then_the_wait_begins_anew() -> None:
    files = Files()
    settling = Settling(1.0, files.look)
    files.write(CAT, 100, 0)
    settling.changed(CAT, 0)
    files.write(CAT, 100, 1)  # the same size, written again

    assert settling.settled(1.0) == []
    assert settling.settled(1.5) == []
    assert settling.settled(2.0) == [(CAT, Stamp(100, 1))]


def test_given_the_same_look_told_twice_then_the_wait_goes_on() -> None:
    files = Files()
    settling = Settling(1.0, files.look)
    files.write(CAT, 100, 0)
    settling.changed(CAT, 0)
    settling.changed(CAT, 0.9)

    assert settling.settled(1.0) == [(CAT, Stamp(100, 0))]


def test_given_a_file_that_is_written_again_later_then_it_is_another_content() -> None:
    files = Files()
    settling = Settling(1.0, files.look)
    files.write(CAT, 100, 0)
    settling.changed(CAT, 0)
    assert len(settling.settled(1)) == 1

    files.write(CAT, 200, 5)
    settling.changed(CAT, 5)
    assert settling.settled(6) == [(CAT, Stamp(200, 5))]


def test_given_a_file_that_went_then_it_is_waited_for_no_more() -> None:
    files = Files()
    settling = Settling(1.0, files.look)
    for path in (CAT, DOG):
        files.write(path, 100, 0)
        settling.changed(path, 0)
    del files.stamps[CAT]
    settling.changed(CAT, 0.5)
    del files.stamps[DOG]

    assert settling.settled(2) == []
    assert len(settling) == 0


def test_given_an_empty_file_then_it_is_looked_at_again_when_it_changes() -> None:
    files = Files()
    settling = Settling(1.0, files.look)
    files.write(CAT, 0, 0)
    settling.changed(CAT, 0)
    assert settling.settled(5) == []
    assert len(settling) == 0  # or who listens once would never end

    files.write(CAT, 100, 6)
    settling.changed(CAT, 6)
    assert settling.settled(6) == []
    assert settling.settled(7) == [(CAT, Stamp(100, 6))]
