"""The worker of the next version, without which no job of the next version would ever run."""

import subprocess
import sys

PROGRAM = """
from tests.chaos import newer
newer.install()
from producer.contract import SCHEMA_VERSION, parse_job
job = parse_job("caption", {"image": "s3://b/c", "schema_version": 2})
print(SCHEMA_VERSION, job.schema_version)
"""


def test_given_the_next_contract_then_it_takes_a_job_that_this_one_refuses() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["2", "2"]
