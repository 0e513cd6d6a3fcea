"""Processes that were told to end, or should by themselves."""

import time

import psutil

__all__ = ["ended"]


def ended(*processes: psutil.Process) -> bool:
    """Whether they end by themselves, soon. A dead one is there until its parent has noticed."""
    until_s = time.monotonic() + 20
    while any(map(_alive, processes)) and time.monotonic() < until_s:
        time.sleep(0.005)
    return not any(map(_alive, processes))


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
