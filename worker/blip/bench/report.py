"""Results as people read them: a few lines, or rows of a markdown table."""

from worker.blip.bench.compare import Result

HEADER = (
    "| model | dtype | against | beams | images/s | transformers | ratio | TFLOP/s | GEMM peak "
    "| share | ms: preprocess, ViT, cross, decode | memory, batch's | same captions |\n"
    "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
)


def lines(result: Result) -> str:
    """A result in a few lines."""
    case = (
        f"{result.model}, {result.dtype} on {result.device}, batch {result.batch}, "
        f"{result.beams} beams, {result.tokens} tokens\n({result.hardware})"
    )
    rate = (
        f"{result.images_per_s:.2f} images/s, {result.tflops:.3f} TFLOP/s: "
        f"{result.gemm_fraction:.0%} of the GEMM peak, {result.gemm_peak_tflops:.3f} TFLOP/s "
        f"({result.gemm_peak_of})"
    )
    stages = ", ".join(
        f"{name} {stage.ms:.1f} ms" + (f" ({stage.tflops:.3f} TFLOP/s)" if stage.tflops else "")
        for name, stage in result.stages.items()
    )
    memory = (
        f"peak memory {_gb(result.peak_memory_bytes)}, {_gb(result.batch_memory_bytes)} of it "
        "for the batch"
    )
    told = [case, rate, stages, memory]
    if result.ratio is not None:
        told.append(
            f"transformers in {result.reference_dtype} {result.transformers_images_per_s:.2f} "
            f"images/s: ratio {result.ratio:.2f}, {result.same_token_ids:.0%} of captions the same"
        )
    return "\n".join(told)


def row(result: Result) -> str:
    """A result as a row under HEADER."""
    compared = ["none", "none", "none", "none"]
    if result.ratio is not None and result.same_token_ids is not None:
        compared = [
            str(result.reference_dtype),
            f"{result.transformers_images_per_s:.2f}",
            f"{result.ratio:.2f}",
            f"{result.same_token_ids:.0%}",
        ]
    against, theirs, ratio, same = compared
    cells = [
        result.model,
        result.dtype,
        against,
        str(result.beams),
        f"{result.images_per_s:.2f}",
        theirs,
        ratio,
        f"{result.tflops:.3f}",
        f"{result.gemm_peak_tflops:.3f}",
        f"{result.gemm_fraction:.0%}",
        ", ".join(f"{stage.ms:.0f}" for stage in result.stages.values()),
        f"{_gb(result.peak_memory_bytes)}, {_gb(result.batch_memory_bytes)}",
        same,
    ]
    return f"| {' | '.join(cells)} |"


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
