"""What a hook is told of, seen to: events of any source, and messages of SNS, once verified."""

import asyncio
import logging
from collections.abc import Sequence

from pydantic import BaseModel, Field

from producer.contract import ImageJob, utcnow
from producer.event_intake import Intake, Taken, events_traced
from producer.event_memory import EventMemory, Sighting
from producer.event_rules import Event, Rules
from producer.gateway.access import CHALLENGE
from producer.gateway.fetching import FetchFailed, fetch
from producer.gateway.gathering import Gathering
from producer.gateway.problems import RETRY_AFTER_S, Code, Problem
from producer.gateway.service import Service
from producer.gateway.sns import (
    CONFIRM_URL,
    CertificateUnavailable,
    Forged,
    NotSns,
    SnsMessage,
    Unsigned,
    Verifier,
)
from producer.index.removal import remover
from producer.s3_events import UnknownEvent, parse
from producer.submission import BATCH, prepared

log = logging.getLogger("captionq.gateway")


class Heard(BaseModel):
    """What became of the events of a request."""

    jobs: int = Field(description="Jobs that they asked for, and the broker now has")
    events: dict[str, int] = Field(
        description="Events by what became of them: submitted; repeated, which have been seen to "
        "before; stale, after a later one of the same key; not_wanted by any rule; no_reference, "
        "whose key no job can name; removed"
    )
    confirmed: bool = Field(False, description="A subscription of SNS has been confirmed")
    repeated_message: bool = Field(False, description="This message of SNS has been seen to before")


class Gathered:
    """A memory of events that many requests ask at the same time, in few round trips."""

    def __init__(self, memory: EventMemory) -> None:
        async def tell(events: list[Event]) -> list[None]:
            await memory.told(events)
            return [None] * len(events)

        self._memory = memory
        self._seeing: Gathering[Event, Sighting] = Gathering(memory.see, BATCH)
        self._telling: Gathering[Event, None] = Gathering(tell, BATCH)

    async def see(self, events: Sequence[Event]) -> list[Sighting]:
        """See `EventMemory.see`."""
        return await asyncio.gather(*map(self._seeing.ask, events))

    async def told(self, events: Sequence[Event]) -> None:
        """See `EventMemory.told`."""
        await asyncio.gather(*map(self._telling.ask, events))

    async def untold(self, events: Sequence[Event]) -> None:
        """See `EventMemory.untold`."""
        await self._memory.untold(events)


class Hearing:
    """What the route needs beside the service; `app.state.hearing`.

    Raises:
        NotInstalled, IndexUnavailable: objects that go are to leave an index that cannot be opened.
    """

    def __init__(self, service: Service, rules: Rules) -> None:
        self._service = service
        self._rules = rules
        self.settings = service.settings
        self._memory = EventMemory(
            service.store.redis, service.settings.events_memory_s, service.store.ledger.prefix
        )
        self._gathered = Gathered(self._memory)
        self._remove = remover(service.settings)
        self.fetch = fetch
        self.verifier = Verifier(lambda url: self.fetch(url))

    async def take(self, body: bytes, owner: str | None) -> Heard:
        """See to the events of a body.

        Raises:
            Problem: event_unknown.
            BrokerUnavailable: they have to come again.
        """
        try:
            events = parse(body)
        except UnknownEvent as exc:
            log.warning("A hook was sent what is no event: %s", exc)
            raise Problem(Code.EVENT_UNKNOWN, f"Seen was {exc}.") from None

        async def submit(jobs: Sequence[ImageJob]) -> None:
            keys = self.settings.keys
            owned = (job if job.owner else job.model_copy(update={"owner": owner}) for job in jobs)
            ready = [prepared(job, keys) for job in owned]
            with events_traced(self._service.client.tracing, ready):
                await asyncio.gather(*(self._service.submitter.ask(job) for job in ready))

        intake = Intake(self._rules, self._gathered, submit, remove=self._remove)
        try:
            return _told(await intake.take(events))
        except OSError as exc:
            if isinstance(exc, ConnectionError):  # the broker's, which is answered as such
                raise
            log.warning("%s", exc)
            raise Problem(Code.INDEX_UNAVAILABLE, headers=_AGAIN) from exc

    async def hear(self, body: bytes) -> Heard:
        """See to a message of SNS.

        Raises:
            Problem: event_unknown, topic_not_allowed, signature_missing, signature_wrong,
                message_replayed, sns_unavailable.
            BrokerUnavailable: it has to come again.
        """
        try:
            message = SnsMessage.read(body)
        except NotSns as exc:
            raise Problem(Code.EVENT_UNKNOWN, f"No message of SNS: {exc}") from None
        if message.topic_arn not in self.settings.topics:
            log.warning("A message of a topic that is not on SNS_TOPICS was refused")
            raise Problem(Code.TOPIC_NOT_ALLOWED)
        await self._verified(message)
        if await self._service.ask(self._memory.heard(message.message_id)):
            return Heard(jobs=0, events={}, repeated_message=True)
        if message.type == "SubscriptionConfirmation":
            heard = await self._confirmed(message)
        elif message.type == "UnsubscribeConfirmation":
            log.warning("%s sends nothing here any more: it was unsubscribed", message.topic_arn)
            heard = Heard(jobs=0, events={})
        else:
            heard = await self.take(message.message.encode(errors="replace"), None)
        noted = self._memory.hear(message.message_id, self.settings.sns_max_age_s)
        await self._service.ask(noted)
        return heard

    async def _verified(self, message: SnsMessage) -> None:
        challenge = {"WWW-Authenticate": CHALLENGE}
        try:
            await self.verifier.verify(message, utcnow())
            fresh = message.fresh(utcnow(), self.settings.sns_max_age_s)
        except Unsigned as exc:
            raise Problem(Code.SIGNATURE_MISSING, f"{exc}.", headers=challenge) from None
        except Forged as exc:
            log.warning("A message of %s was refused: %s", message.topic_arn, exc)
            raise Problem(Code.SIGNATURE_WRONG, headers=challenge) from None
        except CertificateUnavailable as exc:
            log.warning("%s", exc)
            raise Problem(Code.SNS_UNAVAILABLE, headers=_AGAIN) from None
        if not fresh:
            log.warning("A message of %s was refused: it is of %s", message.topic_arn, message.at)
            raise Problem(Code.MESSAGE_REPLAYED)

    async def _confirmed(self, message: SnsMessage) -> Heard:
        url = message.subscribe_url or ""
        if not CONFIRM_URL.fullmatch(url):
            raise Problem(Code.EVENT_UNKNOWN, "The SubscribeURL is not of SNS.")
        try:
            await self.fetch(url)
        except FetchFailed as exc:
            log.warning("The subscription to %s was not confirmed: %s", message.topic_arn, exc)
            raise Problem(Code.SNS_UNAVAILABLE, headers=_AGAIN) from exc
        log.info("The subscription to %s is confirmed", message.topic_arn)
        return Heard(jobs=0, events={}, confirmed=True)


_AGAIN = {"Retry-After": str(RETRY_AFTER_S)}


def _told(taken: Taken) -> Heard:
    return Heard(jobs=taken.jobs, events={f.value: n for f, n in taken.events.items() if n})
