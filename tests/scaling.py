"""From images a month to machines, memory and money: python -m tests.scaling [options]

    python -m tests.scaling --images-per-month 1e9 --device l4 --device-rate 150 --price device_h=2
    python -m tests.scaling --tiers           the table of docs/scaling.md
    python -m tests.scaling --inputs          what it is computed from

Rates are this project's own measurements, each with its document and command; those of GPUs are
estimates until `captionq-worker bench engine` has run on the card: give its images/s as
--device-rate. Prices, in US dollars, are assumptions of a date.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tests.scaling_inputs import DEVICES, FIGURES, PRICED, PRICES, Device

MONTH_S = 30 * 86_400
MONTH_H = MONTH_S / 3_600
CHUNK = 64


@dataclass(frozen=True)
class Load:
    """What is asked of the service. Raises ValueError: nothing, or more than there can be."""

    images_per_month: float = 1e9
    alone: float = 0.0
    """Share of images that come as jobs of their own; the others come in chunks, to a sink."""
    image_kb: float = 100
    utilisation: float = 0.7
    """Of a rate that is planned with: the rest is for peaks, upgrades and failures."""
    backlog_h: float = 6
    """Hours of arrivals that Redis has room for while nothing is worked on."""
    result_h: float = 24
    """CAPTIONQ_RESULT_TTL_S, in hours."""

    def __post_init__(self) -> None:
        if self.images_per_month <= 0 or not 0 < self.utilisation <= 1 or not 0 <= self.alone <= 1:
            raise ValueError(
                "images a month are more than 0, utilisation 0 to 1, the share alone 0 to 1"
            )

    @property
    def images_per_s(self) -> float:
        """The mean, over a month of 30 days."""
        return self.images_per_month / MONTH_S


@dataclass(frozen=True)
class Plan:
    """What a load takes: means a second, and US dollars a month."""

    images_per_s: float
    worker_rate: float
    bound_by: str
    workers: int
    messages_per_s: float
    redis_mb: float
    gateways: int
    listeners: int
    network_mbit: float
    devices: float
    services: float
    requests: float
    per_million: float


def worker_rate(device: Device, alone: float) -> tuple[float, str]:
    """Images/s of one worker, and what bounds it: its device, its cores, or its one process."""
    queue = 1 / (alone / FIGURES["messages"].value + (1 - alone) / FIGURES["queue"].value)
    intake = FIGURES["intake"].value / 2 * device.cores
    return min((device.images_per_s, "device"), (intake, "intake"), (queue, "queue"))


def plan(load: Load, device: Device, prices: Mapping[str, float] = PRICES) -> Plan:
    """The arithmetic of docs/scaling.md."""
    arriving, spare = load.images_per_s, 1 / load.utilisation
    rate, bound_by = worker_rate(device, load.alone)
    workers = math.ceil(arriving * spare / rate)
    messages = arriving * (load.alone + (1 - load.alone) / CHUNK)
    gateways = math.ceil(messages * spare / FIGURES["gateway"].value)
    listeners = math.ceil(arriving * spare / FIGURES["listen"].value)
    kept, waiting = (
        load.alone * FIGURES[f"{what} alone"].value + (1 - load.alone) * FIGURES[what].value
        for what in ("kept", "waiting")
    )
    millions = load.images_per_month / 1e6
    devices = workers * device.price_h * MONTH_H
    services = (prices["redis_h"] + (gateways + listeners) * prices["host_h"]) * MONTH_H
    a_million = 1_000 * (prices["s3_get"] + prices["s3_put"] * (1 - load.alone) / CHUNK)
    a_million += 1.2 * prices["sqs"] + load.image_kb * prices["network_gb"]
    requests = millions * a_million
    return Plan(
        images_per_s=arriving,
        worker_rate=rate,
        bound_by=bound_by,
        workers=workers,
        messages_per_s=messages,
        redis_mb=arriving * 3_600 * (load.backlog_h * waiting + load.result_h * kept) / 1e6,
        gateways=gateways,
        listeners=listeners,
        network_mbit=arriving * load.image_kb * 8 / 1_000,
        devices=devices,
        services=services,
        requests=requests,
        per_million=(devices + services + requests) / millions,
    )


OPTIONS = {
    "images_per_month": "images a month",
    "alone": "share of images that are jobs of their own, 0 to 1; the others come in chunks",
    "image_kb": "kB of an image file",
    "utilisation": "share of each rate that is planned with, above 0, to 1",
    "backlog_h": "hours of arrivals that Redis has room for while nothing is worked on",
    "result_h": "hours that results are kept, CAPTIONQ_RESULT_TTL_S",
}
"""What a load is given by on the command line."""

OWN = dict.fromkeys(PRICES, 0.0)
TIERS: dict[str, tuple[Load, Device, Mapping[str, float]]] = {
    "laptop": (Load(1e6), replace(DEVICES["cpu"], price_h=0), OWN),
    "CPUs alone": (Load(1e7), DEVICES["cpu"], PRICES),
    "one GPU": (Load(3e8), DEVICES["l4"], PRICES),
    "ten GPUs": (Load(3e9, result_h=1), DEVICES["l4"], PRICES),
    "10^9, CPUs": (Load(1e9, result_h=1), DEVICES["cpu"], PRICES),
    "10^9, L4": (Load(1e9, result_h=1), DEVICES["l4"], PRICES),
    "10^9, H100": (Load(1e9, result_h=1), DEVICES["h100"], PRICES),
}

HEADINGS = (
    "tier", "images a month", "images/s", "worker", "images/s of one", "workers", "messages/s",
    "Redis, MB", "gateways, listeners", "Mbit/s in", "$ a month: devices", "services", "requests",
    "$ per million",
)  # fmt: skip


def row(name: str, load: Load, device: Device, prices: Mapping[str, float]) -> str:
    """A line of the table."""
    made = plan(load, device, prices)
    cells = [
        name,
        f"{load.images_per_month:.0e}".replace("e+0", "e").replace("e+", "e"),
        f"{made.images_per_s:,.1f}",
        device.title,
        f"{made.worker_rate:,.4g} ({device.source}; {made.bound_by})",
        f"{made.workers:,}",
        f"{made.messages_per_s:,.1f}",
        f"{made.redis_mb:,.0f}",
        f"{made.gateways}, {made.listeners}",
        f"{made.network_mbit:,.1f}",
        f"{made.devices:,.0f}",
        f"{made.services:,.0f}",
        f"{made.requests:,.0f}",
        f"{made.per_million:,.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def head() -> str:
    """The first two lines of the table."""
    return f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}"


def tiers() -> str:
    """The table of docs/scaling.md."""
    return "\n".join([head(), *(row(name, *tier) for name, tier in TIERS.items())])


def inputs() -> str:
    """What the tables are computed from, as the other tables of docs/scaling.md."""
    lines = ["| figure | | from |", "|---|---|---|"]
    lines += [
        f"| {one.value:,g} | {one.unit} | `{one.command}` ({one.document}) |"
        for one in FIGURES.values()
    ]
    lines += ["", f"| price, {PRICED}, assumed | $ |", "|---|---|"]
    lines += [f"| `device_h`, {one.title} | {one.price_h:g} |" for one in DEVICES.values()]
    lines += [f"| `{name}` | {price:g} |" for name, price in PRICES.items()]
    return "\n".join(lines)


def priced(text: str) -> tuple[str, float]:
    """NAME=DOLLARS, read. Raises ValueError, argparse.ArgumentTypeError: no such price."""
    name, _, dollars = text.partition("=")
    if name not in {*PRICES, "device_h"}:
        raise argparse.ArgumentTypeError(f"{name} is none of device_h, {', '.join(PRICES)}")
    return name, float(dollars)


def main(given: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    standard = Load()
    parser.add_argument("--tiers", action="store_true", help="print the table of tiers instead")
    parser.add_argument("--inputs", action="store_true", help="print rates and prices instead")
    parser.add_argument(
        "--device", choices=DEVICES, default="l4", help="what a worker has (default: l4)"
    )
    parser.add_argument("--device-rate", type=float, help="images/s, as bench engine printed it")
    parser.add_argument(
        "--cores", type=int, help="of a worker's machine, for fetching and decoding"
    )
    for name, meaning in OPTIONS.items():
        default = getattr(standard, name)
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=float, default=default, metavar="NUMBER",
            help=f"{meaning} (default: {default:g})",
        )  # fmt: skip
    parser.add_argument(
        "--price", type=priced, action="append", default=[], metavar="NAME=DOLLARS",
        help="may be repeated: device_h, " + ", ".join(PRICES),
    )  # fmt: skip
    chosen = parser.parse_args(given)
    if chosen.tiers or chosen.inputs:
        print(tiers() if chosen.tiers else inputs())
        return
    prices = PRICES | dict(chosen.price)
    device = DEVICES[chosen.device]
    device = replace(
        device,
        images_per_s=chosen.device_rate or device.images_per_s,
        source="given" if chosen.device_rate else device.source,
        cores=chosen.cores or device.cores,
        price_h=prices.pop("device_h", device.price_h),
    )
    try:
        load = Load(**{name: getattr(chosen, name) for name in OPTIONS})
    except ValueError as exc:
        parser.error(str(exc))
    print(head())
    print(row("yours", load, device, prices))


if __name__ == "__main__":
    main()
