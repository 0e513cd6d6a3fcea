"""What became of jobs, in words."""

from collections.abc import Sequence

from producer.contract import Caption, ErrorCode, JobResult

HINTS = {
    ErrorCode.FILE_NOT_ALLOWED: "The worker reads file:// only under its CAPTIONQ_FILE_ROOT; or "
    "set CAPTIONQ_UPLOAD_URL here, and files are uploaded.",
    ErrorCode.SINK_NOT_ALLOWED: "Workers write to what is in their CAPTIONQ_SINK_ALLOW alone; "
    "Parquet needs captionq[manifests] there, and pictures captionq[report].",
}
"""What to do about an error, told to people alone."""

REFUSED = "abstained: the filter refused every caption"


def outcome(result: JobResult) -> str:
    """What became of a job, in words: captions, or texts or images from the best on, or the error.

    Of regions, each one's best caption; of a chunk, how many images ended how, and its shard, or
    the best of its images where it ranks them.
    """
    if result.error is not None:
        words = f"{result.error.code}: {result.error.message}"
        return f"{words} {HINTS[result.error.code]}" if result.error.code in HINTS else words
    if result.counts is not None and not result.ranking:
        words = ", ".join(f"{count} {ended}" for ended, count in result.counts.items())
        return f"{words}: {result.shard}" if result.shard else words
    if result.regions is not None:
        return " | ".join(
            f"{','.join(map(str, region.box))}: {(*_kept(region.captions), REFUSED)[0]}"
            for region in result.regions
        )
    if result.abstained:
        return REFUSED
    if result.captions is not None:
        return " | ".join(_kept(result.captions))
    if result.explanations is not None:
        return " | ".join(one.text for one in result.explanations)
    if result.embeddings is not None:
        sizes = [len(one.values()) for one in result.embeddings]
        return f"{len(sizes)} embedding{'s' * (len(sizes) != 1)} of {sizes[0]} numbers"
    best_first = result.matches or result.ranking or ()
    return " | ".join(
        f"{one.itm_probability:.3f} {one.text or getattr(one, 'image_ref', '')}"
        for one in best_first
    )


def _kept(captions: Sequence[Caption]) -> list[str]:
    return [caption.text for caption in captions if not caption.rejected]
