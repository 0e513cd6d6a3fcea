"""Bodies as they are sent and answered, for OpenAPI. tests/unit/test_gateway_parts.py reads each
of them by its model."""

from typing import Any

IMAGE = "https://example.com/cat.jpg"

JOBS: dict[str, Any] = {
    "caption": {"task": "caption", "image": IMAGE},
    "alt text in German, told of by callback": {
        "task": "caption",
        "image": "s3://photos/2026/cat.jpg",
        "language": "de",
        "options": {"style": "alt_text"},
        "callback": {"url": "https://app.example.com/hooks/captions", "secret_id": "default"},
    },
    "five samples, weighed": {
        "task": "caption",
        "image": IMAGE,
        "options": {"do_sample": True, "num_return_sequences": 5, "seed": 7},
        "filter": {"min_itm_probability": 0.5},
    },
    "match": {"task": "match", "image": IMAGE, "texts": ["a cat", "a dog"]},
    "rank": {"task": "rank", "image": IMAGE, "texts": ["a cat", "a dog", "a bird"], "k": 1},
    "embed": {"task": "embed", "texts": ["a cat on a sofa"], "encoding": "float16"},
    "explain": {"task": "explain", "image": IMAGE, "texts": ["a cat"]},
    "many images in one job": {
        "task": "caption_chunk",
        "images": ["https://example.com/1.jpg", "https://example.com/2.jpg"],
    },
}

BATCHES: dict[str, Any] = {
    "two jobs and a callback": {
        "jobs": [JOBS["caption"], JOBS["match"] | {"job_id": "shop/4711"}],
        "callback": {"url": "https://app.example.com/hooks/batches"},
    }
}

QUEUED: dict[str, Any] = {
    "job_id": "shop/4711",
    "task": "caption",
    "state": "queued",
    "created_at": "2026-01-31T12:00:00.000000Z",
    "attempts": 0,
}

ENDED: dict[str, Any] = QUEUED | {
    "state": "succeeded",
    "started_at": "2026-01-31T12:00:00.250000Z",
    "attempts": 1,
    "result": {
        "schema_version": 1,
        "job_id": "shop/4711",
        "task": "caption",
        "state": "succeeded",
        "attempts": 1,
        "image_ref": IMAGE,
        "captions": [
            {
                "text": "a cat on a sofa",
                "tokens": ["a", "cat", "on", "a", "sofa", "[SEP]"],
                "token_logprobs": [-0.1, -0.2, -0.3, -0.1, -0.4, -0.1],
                "processed_token_logprobs": [-0.1, -0.2, -0.3, -0.1, -0.4, -0.1],
                "logprob": -1.2,
                "mean_logprob": -0.2,
                "score": -0.2,
                "finish_reason": "stop",
                "count": 1,
                "reject_reasons": [],
            }
        ],
        "finished_at": "2026-01-31T12:00:00.500000Z",
    },
}

JOB_LIST: dict[str, Any] = {
    "jobs": [
        {
            "job_id": "shop/4711",
            "task": "caption",
            "state": "failed",
            "created_at": "2026-01-31T12:00:00.000000Z",
            "finished_at": "2026-01-31T12:00:01.000000Z",
            "image_ref": IMAGE,
            "code": "http_4xx",
            "owner": "shop",
        }
    ],
    "next": "17",
}

BATCH: dict[str, Any] = {
    "batch_id": "3f2b8c1e5d7a4f609b1c2d3e4f5a6b7c",
    "closed": True,
    "total": 2,
    "counts": {
        "queued": 0,
        "running": 1,
        "succeeded": 1,
        "failed": 0,
        "cancelled": 0,
        "dead": 0,
    },
    "created_at": "2026-01-31T12:00:00.000000Z",
}
