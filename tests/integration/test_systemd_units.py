"""The units of docker/systemd/: all of them, run as they say but for systemd."""

import os
import subprocess
import sys

import pytest

from tests.dockerfiles import ROOT
from tests.systemd_units import RUN


@pytest.mark.timeout(400)
@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0,
    reason="a network of their own needs Linux and root: the units are not run, only read",
)
def test_given_what_the_units_say_two_workers_gateway_and_flower_become_healthy_and_end() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.systemd_units"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-4_000:]
    for name in RUN:
        assert f"{name}: healthy" in ran.stdout
        assert f"{name}: ended" in ran.stdout
