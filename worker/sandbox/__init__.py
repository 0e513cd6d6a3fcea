"""Decoding in processes that can be killed.

What decodes an image is C code that strangers feed: it may hang, take all memory, crash, or worse.
A thread cannot be stopped, so each image is decoded in a process that is bounded (decoder.py) and
killed at its deadline; that image alone fails.
"""

from worker.sandbox.pool import Sandbox

__all__ = ["Sandbox"]
