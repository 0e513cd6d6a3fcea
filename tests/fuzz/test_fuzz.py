"""A few seconds of fuzzing, and proof that the fuzzer finds what there is to find."""

import os
from pathlib import Path

import pytest

from tests.fuzz.hunt import corpus, hunt, input_of
from tests.fuzz.targets import raising

SECONDS = float(os.environ.get("FUZZ_SECONDS", "2"))
SEED = 20_260_131


def test_given_damaged_images_when_decoded_for_a_while_then_nothing_is_found(
    tmp_path: Path,
) -> None:
    told: list[tuple[int, float, int]] = []
    findings = hunt(
        "in_this_process", SEED, SECONDS, tmp_path, progress=lambda *now: told.append(now)
    )
    assert not findings, findings
    assert told[-1][0] > 100


@pytest.mark.parametrize(
    ("target", "what"),
    [
        ("raising", "ZeroDivisionError"),
        ("crashing", "SIGSEGV"),
        ("hanging", "hangs"),
        ("misshapen", "pixels of uint8 (2, 2)"),
    ],
)
def test_given_a_decoder_with_a_defect_when_it_is_hunted_then_the_input_is_saved(
    target: str, what: str, tmp_path: Path
) -> None:
    findings = hunt(target, SEED, 5, tmp_path, hang_s=1, max_findings=1)
    assert findings
    finding = findings[0]
    assert what in finding.what
    assert finding.path.read_bytes() == input_of(SEED, finding.number, corpus())
    if target == "raising":
        with pytest.raises(ZeroDivisionError):
            raising(finding.path.read_bytes())


def test_given_a_seed_when_inputs_are_made_again_then_they_are_the_same_as_before() -> None:
    files = corpus()
    assert [input_of(1, n, files) for n in range(50)] == [input_of(1, n, files) for n in range(50)]
    assert len({input_of(seed, n, files) for seed in (1, 2) for n in range(50)}) > 90
