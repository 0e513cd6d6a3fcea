"""Images to measure with, and a server on this machine that serves them over keep-alive."""

import io
import multiprocessing
import socket
import socketserver
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

__all__ = ["MAX_PER_HOST", "jpeg", "served"]

MAX_PER_HOST = 64
"""Fetches at a time: all images are served by one host here."""


def jpeg(size: int) -> bytes:
    """A JPEG of about so many bytes: smooth noise, as photographs are."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for scale in count(1):
        width, height = 40 * scale, 30 * scale
        coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        fine = rng.normal(0, 4, (height, width, 3))
        smooth = np.asarray(Image.fromarray(coarse).resize((width, height)), dtype=float)
        picture = Image.fromarray(np.clip(smooth + fine, 0, 255).astype(np.uint8))
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=85)
        if file.tell() >= size:
            return file.getvalue()
    raise AssertionError


@contextmanager
def served(body: bytes) -> Iterator[int]:
    """The port of a server on this machine that answers every request with `body`."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(body, theirs), daemon=True)
    process.start()
    try:
        yield int(ours.recv())
    finally:
        process.kill()
        process.join()


def _serve(body: bytes, told: "Connection[int, int]") -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = head.encode() + body

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            asked = b""
            while piece := self.request.recv(65_536):
                asked += piece
                while b"\r\n\r\n" in asked:
                    asked = asked.partition(b"\r\n\r\n")[2]
                    self.request.sendall(answer)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        told.send(server.server_address[1])
        server.serve_forever()
