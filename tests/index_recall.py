"""How well and how fast the index finds what exact search does: python -m tests.index_recall [ROWS]

For 100,000 vectors of 256 numbers, uniform on the sphere, and of a mixture (1,000 centres, as
captions of alike images lie): the time that adding and `optimize` take, recall@10 of the index
against exact search, and the time of a search either way; for queries of the mixture, and for ones
that lie apart from all rows as texts do from images (the modality gap, Liang et al. 2022).

With --kinds, the same of other kinds of index on the uniform rows, which is what IVF_SQ was chosen
by. HNSW takes minutes to build.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from producer.contract import Embedding
from producer.index.entry import Entry
from producer.index.place import Place
from producer.index.table import VectorIndex

DIMENSIONS = 256
CENTRES = 1_000
SPACE = ("model", "revision")
Vectors = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Case:
    """Rows, and queries by what they are like."""

    name: str
    rows: Vectors
    queries: dict[str, Vectors]


@dataclass(frozen=True)
class Measured:
    """Recall against numpy's exact search, and median seconds of a search."""

    recall: float
    recall_exact: float
    index_s: float
    exact_s: float


def unit(vectors: Any) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / lengths, dtype=np.float32)


def uniform(rng: np.random.Generator, rows: int, queries: int) -> Case:
    """Directions that know nothing of each other: neighbours are nowhere near."""
    drawn = unit(rng.standard_normal((rows + queries, DIMENSIONS)))
    return Case("uniform", drawn[:rows], {"alike": drawn[rows:]})


def mixture(rng: np.random.Generator, rows: int, queries: int, spread: float = 0.6) -> Case:
    """Directions round CENTRES of them, at a cosine of about 0.86."""
    centres = unit(rng.standard_normal((CENTRES, DIMENSIONS)))

    def near(count: int) -> tuple[Vectors, Vectors]:
        centre = centres[rng.integers(CENTRES, size=count)]
        noise = unit(rng.standard_normal((count, DIMENSIONS)))
        return centre, noise

    centre, noise = near(rows + queries)
    drawn = unit(centre + spread * noise)
    centre, noise = near(queries)
    gap = unit(rng.standard_normal((1, DIMENSIONS)))
    apart = unit(0.45 * centre + 0.9 * gap + 0.3 * noise)
    return Case("mixture", drawn[:rows], {"alike": drawn[rows:], "apart": apart})


def filled(place: Place, vectors: Vectors) -> VectorIndex:
    index = VectorIndex(place)
    for at in range(0, len(vectors), 10_000):
        index.upsert(
            [
                Entry(f"s3://b/{at + n}", vector, *SPACE)  # type: ignore[arg-type]
                for n, vector in enumerate(vectors[at : at + 10_000])
            ]
        )
    return index


def measured(index: VectorIndex, rows: Vectors, queries: Vectors, k: int = 10) -> Measured:
    best = [{f"s3://b/{n}" for n in np.argsort(-(rows @ query))[:k]} for query in queries]
    by_index, index_s = _searched(index, queries, best, exact=False)
    by_all, exact_s = _searched(index, queries, best, exact=True)
    return Measured(by_index, by_all, index_s, exact_s)


def _searched(
    index: VectorIndex, queries: Vectors, best: list[set[str]], exact: bool
) -> tuple[float, float]:
    """Which share of the best is found, and the median time in seconds."""
    found, times = 0, []
    for query, wanted in zip(queries, best, strict=True):
        asked = Embedding.of(query.tolist(), "list", *SPACE)
        began_s = time.perf_counter()
        hits = index.nearest(asked, len(wanted), exact=exact)
        times.append(time.perf_counter() - began_s)
        found += len(wanted & {hit.image_ref for hit in hits})
    return found / sum(map(len, best)), statistics.median(times)


def other_kinds(case: Case) -> None:
    """Print recall and time of indexes that were not chosen."""
    from lancedb.index import HnswSq, IvfFlat, IvfRq, IvfSq

    cosine = {"distance_type": "cosine"}
    kinds: list[tuple[Any, list[dict[str, int]]]] = [
        (IvfFlat(num_partitions=256, **cosine), [{"nprobes": 20}, {"nprobes": 256}]),
        (IvfSq(num_partitions=64, **cosine), [{"nprobes": 16, "refine_factor": 4}]),
        (IvfRq(num_partitions=64, **cosine), [{"nprobes": 64, "refine_factor": 20}]),
        (HnswSq(num_partitions=1, **cosine), [{"ef": 600, "refine_factor": 4}]),
    ]
    queries = case.queries["alike"]
    best = [{f"s3://b/{n}" for n in np.argsort(-(case.rows @ query))[:10]} for query in queries]
    with tempfile.TemporaryDirectory() as folder:
        table = filled(Place(folder), case.rows)._there()
        for kind, searches in kinds:
            began_s = time.perf_counter()
            table.create_index("embedding", config=kind, replace=True)
            print(f"{kind}\n  built in {time.perf_counter() - began_s:.1f} s")
            for settings in searches:
                found, times = 0, []
                for query, wanted in zip(queries, best, strict=True):
                    began_s = time.perf_counter()
                    search = table.search(query, vector_column_name="embedding").limit(10)
                    search = search.distance_type("cosine").select(["image_ref", "_distance"])
                    for name, value in settings.items():
                        search = getattr(search, name)(value)
                    rows = search.to_arrow()["image_ref"].to_pylist()
                    times.append(time.perf_counter() - began_s)
                    found += len(wanted & set(rows))
                recall = found / sum(map(len, best))
                median_ms = statistics.median(times) * 1e3
                print(f"  {settings}: recall@10 {recall:.3f}, {median_ms:.1f} ms", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=int, nargs="?", default=100_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--kinds", action="store_true", help="other kinds of index in its place")
    given = parser.parse_args()
    if given.kinds:
        other_kinds(uniform(np.random.default_rng(1), given.rows, given.queries))
        return
    for draw in (uniform, mixture):
        case = draw(np.random.default_rng(1), given.rows, given.queries)
        with tempfile.TemporaryDirectory() as folder:
            began_s = time.perf_counter()
            index = filled(Place(folder), case.rows)
            added_s = time.perf_counter() - began_s
            began_s = time.perf_counter()
            index.optimize()
            built_s = time.perf_counter() - began_s
            size = sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file())
            print(
                f"{case.name}, {given.rows:,} rows: added in {added_s:.1f} s, optimized in "
                f"{built_s:.1f} s, {size / 1e6:.0f} MB"
            )
            for name, queries in case.queries.items():
                said = measured(index, case.rows, queries)
                print(
                    f"  {name:6} recall@10 {said.recall:.4f} (exact {said.recall_exact:.4f}); "
                    f"{said.index_s * 1e3:.1f} ms (exact {said.exact_s * 1e3:.1f} ms)",
                    flush=True,
                )


if __name__ == "__main__":
    main()
