"""A network that can be broken: forwards TCP to a port of this machine, as a process of its own.

Run as `network.py PORT`; prints the port that it listens on. Takes the commands freeze, drop, thaw
and cut, one a line, on standard input and answers each with `done` when it has taken effect. Ends
with its input, or with an error where a command fails. Knows the standard library only, so that it
starts at once.
"""

import asyncio
import ctypes
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress

HOST = "127.0.0.1"
BACKLOG = 1024  # connections that the kernel takes while nobody accepts them
CHUNK_BYTES = 256 * 1024
CONNECT_TIMEOUT_S = 5


def can_drop() -> bool:
    """Whether `drop` works here: on Linux, where some kernels let only root filter packets."""
    with socket.socket() as probe:
        try:
            _drop_incoming(probe)
        except OSError:
            return False
    return True


class Network:
    """Forwards from a port of its own to `target_port`, in the loop's thread, never waiting."""

    def __init__(self, loop: asyncio.AbstractEventLoop, target_port: int) -> None:
        self._loop = loop
        self._target = (HOST, target_port)
        self._listener = socket.create_server((HOST, 0), backlog=BACKLOG)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._links: set[_Link] = set()
        self._frozen = False
        self._dropping = False

    def freeze(self) -> None:
        """Forward nothing from now on and close nothing."""
        self._frozen = True
        self._loop.remove_reader(self._listener)
        for link in self._links:
            link.pause()

    def drop(self) -> None:
        """Freeze, and lose every packet that peers send."""
        self.freeze()
        self._dropping = True
        _drop_incoming(self._listener)
        self._accept_all()
        for link in self._links:
            link.drop()

    def thaw(self) -> None:
        """Forward, what has been held back first."""
        self._frozen = False
        if self._dropping:
            self._dropping = False
            for end in (self._listener, *(end for link in self._links for end in link.ends)):
                _receive_incoming(end)
        self._loop.add_reader(self._listener, self._accept_all)
        for link in self._links:
            link.resume()

    def cut(self) -> None:
        """Abort all connections, those waiting to be accepted included."""
        self._accept_all()
        for link in list(self._links):
            link.abort()

    def _accept_all(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                return
            self._accept(client)

    def _accept(self, client: socket.socket) -> None:
        try:
            # A server on this machine has been reached, or not, when the call is made.
            server = socket.create_connection(self._target, timeout=CONNECT_TIMEOUT_S)
        except OSError:
            _abort(client)
            return
        link = _Link(self._loop, client, server, self._links.discard)
        self._links.add(link)
        if not self._frozen:
            link.resume()


class _Link:
    """A client's connection and the one to the server that belongs to it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        client: socket.socket,
        server: socket.socket,
        closed: "Callable[[_Link], None]",
    ) -> None:
        self.ends = (client, server)
        self._loop = loop
        self._closed = closed
        self._peer = {client: server, server: client}
        self._unread = {client, server}  # those that have not said that they are done
        self._unsent: dict[socket.socket, bytes] = {}  # by the end that they wait for
        for end in self.ends:
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def pause(self) -> None:
        for end in self.ends:
            self._loop.remove_reader(end)
            self._loop.remove_writer(end)

    def resume(self) -> None:
        for end in self._unsent:
            self._loop.add_writer(end, self._send_rest, end)
        for end in self._unread:
            if self._peer[end] not in self._unsent:
                self._loop.add_reader(end, self._forward, end)

    def drop(self) -> None:
        for end in self.ends:
            _drop_incoming(end)

    def abort(self) -> None:
        self.pause()
        for end in self.ends:
            _abort(end)
        self._closed(self)

    def _forward(self, source: socket.socket) -> None:
        try:
            data = source.recv(CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.abort()
            return
        if data:
            self._send(self._peer[source], data)
        else:
            self._end(source)

    def _send(self, sink: socket.socket, data: bytes) -> None:
        try:
            sent = sink.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.abort()
            return
        if sent < len(data):
            self._unsent[sink] = data[sent:]
            self._loop.remove_reader(self._peer[sink])
            self._loop.add_writer(sink, self._send_rest, sink)

    def _send_rest(self, sink: socket.socket) -> None:
        self._loop.remove_writer(sink)
        self._loop.add_reader(self._peer[sink], self._forward, self._peer[sink])
        self._send(sink, self._unsent.pop(sink))

    def _end(self, source: socket.socket) -> None:
        """Pass on that `source` sends no more; close when neither does."""
        self._loop.remove_reader(source)
        self._unread.remove(source)
        if self._unread:
            with suppress(OSError):
                self._peer[source].shutdown(socket.SHUT_WR)
            return
        for end in self.ends:
            end.close()
        self._closed(self)


def _abort(end: socket.socket) -> None:
    """Close by RST: nothing that waits to be sent is sent."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()


def _drop_incoming(end: socket.socket) -> None:
    """Let the kernel drop every packet for `end`, before TCP sees it, by a filter that keeps none.

    Source: Linux, Documentation/networking/filter.rst; 0x06 is BPF_RET | BPF_K, 26 is
    SO_ATTACH_FILTER.
    """
    keep_0_bytes = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    program = struct.pack("HP", 1, ctypes.addressof(keep_0_bytes))
    end.setsockopt(socket.SOL_SOCKET, 26, program)


def _receive_incoming(end: socket.socket) -> None:
    """Undo `_drop_incoming`; 27 is SO_DETACH_FILTER."""
    end.setsockopt(socket.SOL_SOCKET, 27, 0)


def main() -> None:
    """Forward, and do what standard input says."""
    loop = asyncio.new_event_loop()
    network = Network(loop, int(sys.argv[1]))
    commands = {
        "freeze": network.freeze,
        "drop": network.drop,
        "thaw": network.thaw,
        "cut": network.cut,
    }

    def obey() -> None:
        if line := sys.stdin.readline():
            try:
                commands[line.strip()]()
            except BaseException:
                loop.stop()
                raise
            print("done", flush=True)
        else:
            loop.stop()

    network.thaw()
    loop.add_reader(sys.stdin, obey)
    print(network.port, flush=True)
    loop.run_forever()
    network.cut()


if __name__ == "__main__":
    main()
