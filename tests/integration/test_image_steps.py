"""Every image's steps are taken, and its command becomes healthy, without Docker."""

import os
import subprocess
import sys

import pytest

from tests.dockerfiles import ROOT
from tests.image_steps import IMAGES


@pytest.mark.timeout(400)
@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0,
    reason="a clean root needs Linux and root: docker/ is not tried, only read",
)
@pytest.mark.parametrize("image", sorted(set(IMAGES) - {"worker"}))  # "baked" is that, and more
def test_given_a_clean_root_an_images_steps_end_in_a_healthy_process(image: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.image_steps", "--installed", image],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-4_000:]
    assert "healthy after" in ran.stdout
