"""Which kernels take the time: torch's profiler over one batch."""

import torch
from torch.profiler import ProfilerActivity, profile

from worker.blip.bench.compare import Case, ours
from worker.blip.bench.noise import coarse_noise
from worker.blip.engine import Engine


def kernel_shares(case: Case, most: int = 8) -> list[tuple[str, float]]:
    """(kernel, its share of all kernels' own time) of our side of a case, the slowest first.

    On CUDA the time on the device counts, else that on the CPU.
    """
    engine = Engine.load(case.folder, device=case.device, dtype=case.dtype, tasks=["caption"])
    images = coarse_noise(case.batch, engine.image_size)
    ours(engine, images, case)
    on_gpu = torch.device(engine.device).type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as found:
        ours(engine, images, case)
    field = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    times = {event.key: float(getattr(event, field)) for event in found.key_averages()}
    slowest = sorted(times.items(), key=lambda item: -item[1])[:most]
    return [(name, time / sum(times.values())) for name, time in slowest]
