"""What a service is compared with: its engine, and its intake, without a queue."""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

__all__ = ["engine_rate", "intake_rate", "timed_rate"]

THREADS = 32
ROUNDS_S = 20.0


def timed_rate(max_batch: int) -> float:
    """Images per second of the timed engine in full batches."""
    from worker.bench.app import ENGINES

    return max_batch / ENGINES["timed"].batch_s(max_batch)


def engine_rate(
    checkpoint: str, batch: int, dtype: str, beams: int, tokens: int, images: int
) -> float:
    """Images per second of an engine in full batches, on the CPU; the median of its batches."""
    import numpy as np

    from worker.blip import CaptionOptions, Engine
    from worker.settings import model_path

    engine = Engine.load(model_path(checkpoint), device="cpu", dtype=dtype, tasks=["caption"])
    options = CaptionOptions(num_beams=beams, max_new_tokens=tokens, min_new_tokens=tokens)
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (*engine.image_size, 3), dtype=np.uint8) for _ in range(batch)]
    engine.warmup(batch)
    took: list[float] = []
    while len(took) < max(3, images // batch) and sum(took) < ROUNDS_S:
        began_s = time.perf_counter()
        engine.caption(engine.encode(pictures, "native", None), [options] * batch)
        took.append(time.perf_counter() - began_s)
    return batch / statistics.median(took)


def intake_rate(port: int, images: int) -> float:
    """Images per second that are fetched and decoded, guarded as in a worker, without a queue."""
    from worker.bench.intake import guarded

    with guarded(port) as (fetch, decode), ThreadPoolExecutor(THREADS) as threads:

        def one(_: int) -> None:
            decode(fetch())

        list(threads.map(one, range(2 * THREADS)))
        began_s = time.perf_counter()
        list(threads.map(one, range(images)))
        return images / (time.perf_counter() - began_s)
