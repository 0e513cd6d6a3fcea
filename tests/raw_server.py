"""A server of bare sockets, for answers that no HTTP library would send.

with RawServer(lambda peer: peer.sendall(b"HTTP/1.1 200 OK\r\n...")) as server:
    server.url("/a.png")
"""

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Self


class RawServer:
    """Serves 127.0.0.1 and a free port: each connection gets a thread that reads a request's head
    (unless `head` is False), then has `answer` called with the socket, and hangs up.
    """

    def __init__(self, answer: Callable[[socket.socket], None], *, head: bool = True) -> None:
        self.answer = answer
        self.heads: list[bytes] = []
        self.stopping = threading.Event()
        self._head = head
        self._peers: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def drip(self, peer: socket.socket, data: bytes, every_s: float) -> None:
        """Send byte by byte, until the server stops or the peer hangs up."""
        for number in range(len(data)):
            if self.stopping.wait(every_s):
                return
            peer.sendall(data[number : number + 1])

    def stop(self) -> None:
        self.stopping.set()
        self._listener.close()
        for peer in list(self._peers):
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        self._peers.add(peer)
        with contextlib.suppress(OSError), peer:
            head = b""
            while self._head and b"\r\n\r\n" not in head:
                if not (piece := peer.recv(65_536)):
                    return
                head += piece
            self.heads.append(head)
            self.answer(peer)
        self._peers.discard(peer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
