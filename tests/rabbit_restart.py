"""RabbitMQ is killed while jobs run, and started again: what becomes of them.

python -m tests.rabbit_restart            # classic queues
python -m tests.rabbit_restart quorum
"""

import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from producer import CaptionJob
from producer.errors import BrokerUnavailable
from tests.house import PNG
from tests.rabbit_server import missing, rabbit_house
from tests.servers import Reply

JOBS = 100
TIMEOUT_S = 240


def restart(kind: str, folder: Path) -> None:
    """Print what became of jobs that ran, waited, were tried again, and came meanwhile."""
    with rabbit_house(folder, kind) as (rabbit, house):
        client, web = house.client, house.web
        web.routes["/slow.png"] = [Reply(200, PNG, delay_s=1)]
        web.routes |= {f"/again{n}.png": [Reply(503), Reply(200, PNG)] for n in range(JOBS)}
        jobs = [CaptionJob(image=web.url(f"/again{n}.png")) for n in range(JOBS)]
        jobs += [CaptionJob(image=web.url(f"/slow.png?{n}")) for n in range(JOBS)]
        handles = client.submit_many(jobs)
        while web.hits(f"/again{JOBS // 2}.png") < 1:
            time.sleep(0.01)
        rabbit.__exit__()
        meanwhile = CaptionJob(job_id="meanwhile", image=web.url("/ok.png"))
        try:
            client.submit(meanwhile)
        except BrokerUnavailable as exc:
            print(f"submitting meanwhile: {exc}")
        rabbit.__enter__()
        handles.append(client.submit(meanwhile))
        with suppress(TimeoutError):
            for handle in handles:
                handle.result(TIMEOUT_S)
        records = [client.status(handle.job_id) for handle in handles]
        states = Counter(f"{one.state.value} {one.attempt}" for one in records if one)
        print(f"{kind}: states and attempts {dict(states)}")


if __name__ == "__main__":
    if (reason := missing()) is not None:
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as temporary:
        restart(sys.argv[1] if len(sys.argv) > 1 else "classic", Path(temporary))
