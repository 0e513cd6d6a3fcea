"""Series as Prometheus would have them, read from real processes, and as promtool takes them."""

import math
import time
from collections.abc import Mapping
from itertools import groupby
from urllib.error import URLError
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

Series = dict[str, str]
"""Values of each series, by its name and labels, in promtool's notation."""

LEFT_OUT = ("_bucket", "_created")
OF_THE_PROCESS = "process_start_time_seconds"


def scraped(url: str, job: str, instance: str) -> dict[str, float]:
    """What one target answers, by series; `up` alone when it does not answer."""
    labels = {"job": job, "instance": instance}
    try:
        with urlopen(f"{url}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except (URLError, OSError):
        return {spelled("up", labels): 0}
    found = {spelled("up", labels): 1.0}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            kept = sample.name.startswith("captionq_") or sample.name == OF_THE_PROCESS
            if kept and not sample.name.endswith(LEFT_OUT):
                found[spelled(sample.name, {**labels, **sample.labels})] = sample.value
    return found


def spelled(name: str, labels: Mapping[str, str]) -> str:
    """A series as promtool writes it."""
    inside = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    return f"{name}{{{inside}}}"


def recorded(targets: Mapping[str, str], job: str, samples: int, every_s: float) -> Series:
    """What the targets answer, asked so often; targets are addresses by their instance."""
    rows: list[dict[str, float]] = []
    began_s = time.monotonic()
    for number in range(samples):
        time.sleep(max(0.0, began_s + number * every_s - time.monotonic()))
        row: dict[str, float] = {}
        for instance, url in targets.items():
            row |= scraped(url, job, instance)
        rows.append(row)
    names = sorted({name for row in rows for name in row})
    return {name: noted([row.get(name, math.nan) for row in rows]) for name in names}


def noted(values: list[float]) -> str:
    """Values in promtool's notation; what is not there (NaN) is `_`.

    >>> noted([1, 1, 1, math.nan, 2.5])
    '1x2 _ 2.5'
    """
    said = ["_" if math.isnan(one) else f"{one:.10g}" for one in values]
    found = []
    for value, group in groupby(said):
        repeats = len(list(group))
        if value == "_":
            found += ["_"] * repeats
        else:
            found.append(f"{value}x{repeats - 1}" if repeats > 1 else value)
    return " ".join(found)
