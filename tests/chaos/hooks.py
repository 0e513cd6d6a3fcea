"""A receiver of callbacks that may be away, and hears some twice before it accepts them."""

import threading
from collections import defaultdict
from typing import NamedTuple

from standardwebhooks import Webhook, WebhookVerificationError

from tests.servers import Reply, ScriptedHttp, Seen

SECRET = "whsec_" + "c2hha2Vu" * 4


class Call(NamedTuple):
    """What was heard of a job: under which webhook-id, and which end."""

    webhook_id: str
    finished_at: str


class Hooks(ScriptedHttp):
    """Verifies what comes, as receivers do, and refuses a quarter of it the first time.

    Attributes:
        away: whether it hangs up on whoever calls.
        heard: what was genuine, by job.
    """

    def __init__(self) -> None:
        self.away = False
        self.heard: dict[str, list[Call]] = defaultdict(list)
        self._book = threading.Lock()
        super().__init__()

    def reply_to(self, request: Seen) -> Reply:
        if self.away:
            return Reply(hang_up=True)
        try:
            event = Webhook(SECRET).verify(request.body, dict(request.headers))
        except WebhookVerificationError:  # also where the worker's clock has jumped
            return Reply(400)
        call = Call(request.headers["webhook-id"], event["data"]["finished_at"])
        with self._book:
            calls = self.heard[event["data"]["job_id"]]
            calls.append(call)
            first = calls.count(call) == 1
        return Reply(503) if first and call.webhook_id[-1] in "0123" else Reply(204)
