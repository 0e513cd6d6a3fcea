"""A chunk's items as the bytes of one file: JSON Lines, or Parquet. The same items, the same bytes.

A line, or a row, is an ItemResult (producer/result.py) as its JSON has it.
"""

import importlib.util
from collections.abc import Sequence
from io import BytesIO
from typing import Any, Literal

from producer.contract import ItemResult
from worker.errors import ErrorCode, Fault

Format = Literal["jsonl", "parquet"]


def check_format(kind: Format) -> None:
    """Pass a format that can be written here.

    Raises:
        Fault: sink_not_allowed: Parquet, where pyarrow is not installed.
    """
    if kind == "parquet" and importlib.util.find_spec("pyarrow") is None:
        detail = "Parquet needs pyarrow, which is not installed: pip install 'captionq[manifests]'"
        raise Fault(ErrorCode.SINK_NOT_ALLOWED, detail)


def encoded(items: Sequence[ItemResult], kind: Format) -> bytes:
    """The file's bytes. Raises: Fault, as `check_format`."""
    check_format(kind)
    if kind == "parquet":
        return _parquet(items)
    return "".join(f"{item.model_dump_json()}\n" for item in items).encode()


def _parquet(items: Sequence[ItemResult]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [item.model_dump(mode="json") for item in items]
    out = BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=_schema(pa)), out, compression="zstd")
    return out.getvalue()


def _schema(pa: Any) -> Any:
    """What the columns are, whether or not any of these items has a value for them."""
    text, number, real, yes_or_no = pa.string(), pa.int64(), pa.float64(), pa.bool_()
    reals = pa.list_(real)
    word = {
        "text": text,
        "logprob": real,
        "peak": reals,
        "box": pa.list_(number),
        "entropy": real,
        "coverage": real,
        "map": text,
    }
    explanation = {
        "text": text,
        "method": text,
        "grid": pa.list_(number),
        "words": pa.list_(pa.struct(word)),
        "maps": text,
        "map_grid": pa.list_(number),
        "map_box": reals,
    }
    caption = {
        "text": text,
        "tokens": pa.list_(text),
        "token_logprobs": reals,
        "processed_token_logprobs": reals,
        "logprob": real,
        "mean_logprob": real,
        "score": real,
        "finish_reason": text,
        "seed": number,
        "count": number,
        "itm_probability": real,
        "calibrated_probability": real,
        "rejected": yes_or_no,
        "reject_reasons": pa.list_(text),
        "explanation": pa.struct(explanation),
    }
    match = {
        "text": text,
        "index": number,
        "itm_probability": real,
        "itm_logit": real,
        "itc_cosine": real,
        "score": real,
        "calibrated_probability": real,
        "decision": text,
        "explanation": pa.struct(explanation),
    }
    embedding = {
        "model": text,
        "revision": text,
        "encoding": text,
        "vector": reals,
        "base64": text,
    }
    pack = {"name": text, "language": text, "revision": text}
    facts = {"format": text, "width": number, "height": number, "bytes": number, "sha256": text}
    return pa.schema(
        {
            "index": number,
            "image_ref": text,
            "state": text,
            "attempts": number,
            "captions": pa.list_(pa.struct(caption)),
            "matches": pa.list_(pa.struct(match)),
            "embeddings": pa.list_(pa.struct(embedding)),
            "abstained": yes_or_no,
            "pack": pa.struct(pack),
            "match_pack": pa.struct(pack),
            "error": pa.struct({"code": text, "message": text}),
            "image": pa.struct(facts),
        }
    )
