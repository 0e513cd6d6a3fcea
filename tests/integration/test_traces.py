"""One trace from submission to callback, as a real worker sends it by OTLP; none unless wanted."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from producer import Client
from producer.callback import Callback
from producer.contract import CaptionChunk, CaptionJob
from producer.embedded import RedisServer
from producer.tracing import Tracing
from tests.event_shapes import Happened, aws, records
from tests.gateway_process import GatewayProcess
from tests.house import PNG, House, open_house
from tests.servers import Reply, ScriptedHttp
from worker.deadletter import DeadLetters

TIMEOUT_S = 60


@dataclass(frozen=True)
class Span:
    name: str
    trace: str
    id: str
    parent: str
    begin_ns: int
    end_ns: int
    status: int
    message: str
    attributes: dict[str, Any]


@dataclass
class Collector:
    """What listens where OTEL_EXPORTER_OTLP_ENDPOINT says."""

    web: ScriptedHttp

    def spans(self) -> list[Span]:
        found = []
        for seen in self.web.requests:
            if seen.path == "/v1/traces":
                asked = ExportTraceServiceRequest.FromString(seen.body)
                for resource in asked.resource_spans:
                    for scope in resource.scope_spans:
                        found += [_span(one) for one in scope.spans]
        return found

    def of(self, trace: str, names: Iterable[str]) -> dict[str, Span]:
        """The last spans of a trace by name, once there are those of these names, each as often."""
        end_s = time.monotonic() + TIMEOUT_S
        while True:
            spans = [one for one in self.spans() if one.trace == trace]
            missing = Counter(names) - Counter(one.name for one in spans)
            if not missing:
                return {one.name: one for one in spans}
            assert time.monotonic() < end_s, f"{missing} are missing"
            time.sleep(0.1)


def _span(one: Any) -> Span:
    return Span(
        one.name,
        one.trace_id.hex(),
        one.span_id.hex(),
        one.parent_span_id.hex(),
        one.start_time_unix_nano,
        one.end_time_unix_nano,
        one.status.code,
        one.status.message,
        {each.key: each.value.string_value or each.value.int_value for each in one.attributes},
    )


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with ScriptedHttp({"/v1/traces": [Reply(200)]}) as web:
        yield Collector(web)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[House]:
    settings = {
        "CAPTIONQ_TRACING": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.web.port}",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }
    with open_house(tmp_path_factory.mktemp("traced"), **settings) as opened:
        yield opened


@pytest.fixture
def submitted(traced: House) -> Iterator[InMemorySpanExporter]:
    """What the client of the house has noted, in this process."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    traced.client._tracing = Tracing(provider)
    yield exporter
    traced.client._tracing = None


def test_given_a_job_with_a_callback_one_trace_goes_from_its_submission_to_that(
    traced: House, collector: Collector, submitted: InMemorySpanExporter
) -> None:
    hook = Callback(url=traced.web.url("/told"))
    job = CaptionJob(image=traced.web.url("/ok.png"), callback=hook)
    handle = traced.client.submit(job)
    handle.result(TIMEOUT_S)
    [submit] = submitted.get_finished_spans()
    assert (submit.name, submit.parent) == ("submit caption", None)
    assert submit.attributes is not None
    assert submit.attributes["captionq.job_id"] == handle.job_id
    trace = f"{submit.context.trace_id:032x}"
    stages = {"queue", "fetch", "decode", "infer", "publish"}
    spans = collector.of(trace, {"work caption", "callback", *stages})
    work = spans["work caption"]
    assert work.parent == spans["callback"].parent == f"{submit.context.span_id:016x}"
    assert {spans[stage].parent for stage in stages} == {work.id}
    for before, after in (("fetch", "decode"), ("decode", "infer"), ("infer", "publish")):
        assert spans[before].begin_ns <= spans[before].end_ns <= spans[after].end_ns
    assert work.begin_ns <= spans["fetch"].begin_ns
    assert spans["publish"].end_ns <= work.end_ns
    told = [seen for seen in traced.web.requests if seen.path == "/told"][-1]
    assert told.headers["traceparent"].startswith(f"00-{trace}-{spans['callback'].id}-")
    assert "ok.png" not in str(collector.spans()), "no image is named"


def test_given_a_job_that_is_tried_again_each_try_is_a_span_that_says_why(
    traced: House, collector: Collector, submitted: InMemorySpanExporter
) -> None:
    job = CaptionJob(image=traced.web.url("/busy.png"))
    traced.client.submit(job).result(TIMEOUT_S)
    [submit] = submitted.get_finished_spans()
    trace = f"{submit.context.trace_id:032x}"
    collector.of(trace, ["work caption"] * 3)
    tries = [one for one in collector.spans() if (one.trace, one.name) == (trace, "work caption")]
    assert [one.message for one in sorted(tries, key=lambda one: one.begin_ns)] == [
        "http_5xx", "http_5xx", "",
    ]  # fmt: skip


def test_given_a_chunk_each_of_its_images_has_a_span_with_its_stages(
    traced: House, collector: Collector, submitted: InMemorySpanExporter
) -> None:
    chunk = CaptionChunk(images=(traced.web.url("/ok.png"), traced.web.url("/missing.png")))
    traced.client.submit(chunk).result(TIMEOUT_S)
    [submit] = submitted.get_finished_spans()
    trace = f"{submit.context.trace_id:032x}"
    spans = collector.of(trace, {"work caption_chunk", "publish", "infer"})
    work = spans["work caption_chunk"]
    assert work.status == 0
    images = [one for one in collector.spans() if (one.trace, one.name) == (trace, "image")]
    good, missing = sorted(images, key=lambda one: one.attributes["captionq.image"])
    assert {good.parent, missing.parent} == {work.id}
    assert (good.message, missing.message) == ("", "http_4xx")
    stages = [spans[stage] for stage in ("fetch", "decode", "infer")]
    assert {stage.parent for stage in stages} == {good.id}
    assert good.begin_ns == stages[0].begin_ns
    assert stages[0].end_ns <= stages[1].end_ns <= stages[2].begin_ns + 1_000
    assert stages[2].end_ns == good.end_ns <= work.end_ns


def test_given_a_job_that_is_replayed_it_goes_on_in_its_trace(
    traced: House, collector: Collector, submitted: InMemorySpanExporter
) -> None:
    traced.web.routes["/down.png"] = [Reply(503)]
    handle = traced.client.submit(CaptionJob(image=traced.web.url("/down.png")))
    assert handle.result(TIMEOUT_S).state == "failed"
    traced.web.routes["/down.png"] = [Reply(200, PNG)]
    letters = DeadLetters(traced.broker.url)
    letter = letters.get(handle.job_id)
    assert letter is not None
    sent = lambda job: traced.client._publisher.publish([job], time.monotonic() + 10)  # noqa: E731
    assert letters.replay(letter, sent)
    letters.close()
    assert handle.result(TIMEOUT_S).state == "succeeded"
    [submit] = submitted.get_finished_spans()
    spans = collector.of(f"{submit.context.trace_id:032x}", {"work caption", "infer"})
    assert spans["infer"].parent == spans["work caption"].id


def test_given_a_job_its_lines_in_the_log_name_its_trace(
    traced: House, submitted: InMemorySpanExporter
) -> None:
    handle = traced.client.submit(CaptionJob(image=traced.web.url("/missing.png")))
    handle.result(TIMEOUT_S)
    [submit] = submitted.get_finished_spans()
    trace = f"{submit.context.trace_id:032x}"
    traced.worker.wait_for_log(f'"job_id": "{handle.job_id}"', TIMEOUT_S)
    lines = [json.loads(line) for line in traced.worker.log.splitlines() if handle.job_id in line]
    said = [line for line in lines if "http_4xx" in str(line)]
    assert len(said) == 2  # why it failed, and that it ended
    assert {line["trace_id"] for line in said} == {trace}


def test_given_a_message_that_lost_its_header_the_record_names_the_trace(
    traced: House, collector: Collector, submitted: InMemorySpanExporter
) -> None:
    """As when the reconciler sends it again."""
    client = traced.client
    job = CaptionJob(job_id="resent", image=traced.web.url("/ok.png"))
    publish = client._publisher.publish
    client._publisher.publish = lambda _, deadline_s: publish([job], deadline_s)  # type: ignore[method-assign]
    try:
        client.submit(job).result(TIMEOUT_S)
    finally:
        del client._publisher.publish
    [submit] = submitted.get_finished_spans()
    spans = collector.of(f"{submit.context.trace_id:032x}", {"work caption"})
    assert spans["work caption"].parent == f"{submit.context.span_id:016x}"


@pytest.fixture(scope="module")
def gateway(traced: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    settings = {
        name: value
        for name, value in traced.environment.items()
        if name.startswith(("OTEL_", "CAPTIONQ_TRACING"))
    }
    log = tmp_path_factory.mktemp("gateway") / "gateway.log"
    opened = GatewayProcess(traced.broker.url, log, **settings)
    yield opened
    opened.stop()


def asked_in(trace: str) -> dict[str, str]:
    return {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}


def test_given_a_request_with_a_traceparent_the_gateway_goes_on_with_that_trace(
    traced: House, collector: Collector, gateway: GatewayProcess
) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    job = {"task": "caption", "image": traced.web.url("/ok.png")}
    with gateway.client() as http:
        assert http.post("/v1/jobs", json=job, headers=asked_in(trace)).status_code == 202
    spans = collector.of(trace, {"submit caption", "work caption"})
    assert spans["submit caption"].parent == "b7ad6b7169203331"
    assert spans["work caption"].parent == spans["submit caption"].id


def test_given_a_batch_one_trace_has_all_its_jobs_and_its_callback(
    traced: House, collector: Collector, gateway: GatewayProcess
) -> None:
    trace = "1af7651916cd43dd8448eb211c80319c"
    batch = {
        "jobs": [{"task": "caption", "image": traced.web.url("/ok.png")} for _ in range(3)],
        "callback": {"url": traced.web.url("/told")},
    }
    with gateway.client() as http:
        assert http.post("/v1/jobs:batch", json=batch, headers=asked_in(trace)).status_code == 202
    spans = collector.of(trace, {"submit batch", "work caption", "callback"})
    assert spans["submit batch"].parent == "b7ad6b7169203331"
    assert spans["submit batch"].attributes["captionq.jobs"] == 3
    assert spans["callback"].parent == spans["submit batch"].id
    submits = [one for one in collector.spans() if one.name == "submit caption"]
    assert [one.parent for one in submits if one.trace == trace] == 3 * [spans["submit batch"].id]


def test_given_events_of_an_upload_one_trace_has_all_their_jobs(
    traced: House, collector: Collector, gateway: GatewayProcess
) -> None:
    with gateway.client() as http:
        came = [aws(Happened(key=name, etag=name)) for name in ("one.png", "two.png")]
        answer = http.post("/hooks/s3", content=records(*came))
    assert answer.json()["jobs"] == 2
    end_s = time.monotonic() + TIMEOUT_S
    while not (found := [one for one in collector.spans() if one.name == "submit events"]):
        assert time.monotonic() < end_s
        time.sleep(0.1)
    [events] = found
    spans = collector.of(events.trace, {"submit caption", "work caption"})
    assert spans["submit caption"].parent == events.id
    submits = [one for one in collector.spans() if one.name == "submit caption"]
    assert len([one for one in submits if one.trace == events.trace]) == 2


def test_given_a_header_that_names_no_trace_the_job_is_worked_on_all_the_same(
    traced: House,
) -> None:
    with redis.Redis.from_url(traced.broker.url) as client:
        handle = traced.client.submit(CaptionJob(image=traced.web.url("/ok.png")))
        client.hset(f"captionq:job:{handle.job_id}", "traceparent", "\n forged")
        assert handle.result(TIMEOUT_S).state == "succeeded"


def test_given_no_tracing_a_message_and_a_record_have_nothing_of_it(
    redis_server: RedisServer,
) -> None:
    job = CaptionJob(job_id="same", image="https://example.com/a.png")
    with Client(redis_server.url) as client, redis.Redis.from_url(redis_server.url) as broker:
        assert client._tracing is None
        client.submit(job)
        sent = json.loads(broker.rpop("captionq.caption") or "")
        assert "traceparent" not in sent["headers"]
        assert broker.hget("captionq:job:same", "traceparent") is None
        client._tracing = Tracing(TracerProvider())
        client.submit(job.model_copy(update={"job_id": "traced"}))
        traced = json.loads(broker.rpop("captionq.caption") or "")
        client._tracing = None
    assert set(traced["headers"]) - set(sent["headers"]) == {"traceparent"}
    assert traced.keys() == sent.keys()


@pytest.mark.parametrize("module", ["producer.client", "producer.gateway.app", "worker.house"])
def test_given_no_tracing_what_makes_spans_is_not_imported(module: str) -> None:
    """redis-py looks for OpenTelemetry by itself, and imports its metrics where it is installed."""
    code = (
        f"import sys, {module}; from producer.tracing import begin; assert not begin(False, '');"
        "made_by = ('opentelemetry.exporter', 'opentelemetry.sdk.trace');"
        "print([one for one in sys.modules if one.startswith(made_by)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
