"""What docs/scaling.md says is what the command computes, from figures that stand in docs/."""

import math
import re

import pytest

from tests import scaling
from tests.dockerfiles import ROOT
from tests.scaling import Load, plan
from tests.scaling_inputs import DEVICES, FIGURES, PRICES, Figure

PAGE = (ROOT / "docs/scaling.md").read_text()


@pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)
def test_given_a_figure_its_document_says_it_in_these_words(figure: Figure) -> None:
    document = (ROOT / "docs" / figure.document).read_text()
    assert figure.said in document
    assert f"{figure.value:,g}" in figure.said


def test_given_the_page_its_tables_are_those_that_the_command_prints() -> None:
    assert scaling.tiers() in PAGE
    assert scaling.inputs() in PAGE


def test_given_a_billion_images_a_month_it_is_386_a_second_in_6_messages() -> None:
    made = plan(Load(1e9), DEVICES["l4"])
    assert round(made.images_per_s) == 386
    assert round(made.messages_per_s) == 6
    assert made.workers == math.ceil(1e9 / 2_592_000 / 0.7 / DEVICES["l4"].images_per_s)


def test_given_jobs_of_their_own_messages_bound_a_fast_device() -> None:
    alone = plan(Load(1e9, alone=1), DEVICES["h100"])
    assert (alone.bound_by, alone.worker_rate) == ("queue", FIGURES["messages"].value)
    assert plan(Load(1e9), DEVICES["h100"]).bound_by == "device"
    assert alone.redis_mb > 15 * plan(Load(1e9), DEVICES["h100"]).redis_mb


def test_given_few_cores_beside_a_fast_device_decoding_bounds_it() -> None:
    few = scaling.replace(DEVICES["h100"], cores=4)
    made = plan(Load(1e9), few)
    assert (made.bound_by, made.worker_rate) == ("intake", 4 * FIGURES["intake"].value / 2)


def test_given_a_price_only_what_it_pays_for_changes() -> None:
    standard = plan(Load(1e9), DEVICES["l4"])
    dearer = plan(Load(1e9), DEVICES["l4"], PRICES | {"s3_get": PRICES["s3_get"] + 0.001})
    assert dearer.per_million - standard.per_million == pytest.approx(1)
    assert (dearer.devices, dearer.services) == (standard.devices, standard.services)


@pytest.mark.parametrize("name", ["one GPU", "ten GPUs", "10^9, L4", "10^9, H100"])
def test_given_gpus_requests_are_the_share_of_the_bill_that_the_page_says(name: str) -> None:
    assert "requests are a fifth to a third of the bill" in PAGE
    made = plan(*scaling.TIERS[name])
    assert 1 / 5 < made.requests / (made.devices + made.services + made.requests) < 1 / 3
    s3 = plan(scaling.TIERS[name][0], DEVICES["l4"], PRICES | {"sqs": 0.0}).requests
    assert s3 / made.requests == pytest.approx(1 / 2, abs=0.01)


def test_given_options_the_command_counts_with_them(capsys: pytest.CaptureFixture[str]) -> None:
    scaling.main(["--images-per-month", "2.592e6", "--device-rate", "0.5", "--price", "device_h=2"])
    cells = [cell.strip() for cell in capsys.readouterr().out.splitlines()[-1].split("|")]
    assert cells[3] == "1.0"
    assert cells[5] == "0.5 (given; device)"
    assert cells[6] == "3"
    assert cells[11] == f"{3 * 2 * 720:,}"


@pytest.mark.parametrize(
    ("given", "said"),
    [(["--utilisation", "0"], "utilisation 0 to 1"), (["--price", "gold=1"], "gold is none of")],
)
def test_given_what_cannot_be_the_command_says_what_can(
    given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        scaling.main(given)
    assert said in capsys.readouterr().err


def test_given_the_share_of_the_peak_the_page_says_the_same() -> None:
    assert "a fifth of the dense bfloat16 peak" in re.sub(r"\s+", " ", PAGE)
    assert DEVICES["h100"].images_per_s == round(989 * 0.2 * 1_000 / 130.5)
