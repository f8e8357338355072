"""Asking for pages as a browser or a script does, from an address of one's choice."""

import http.client
from base64 import b64encode
from contextlib import closing

from study.stack.login import USER

TIMEOUT_S = 20


def ask(
    port: int,
    path: str,
    *,
    source: str = "127.0.0.1",
    method: str = "GET",
    password: str | None = None,
    **headers: str,
) -> http.client.HTTPResponse:
    """Ask a server of this machine; from a `source` of its own a test shares no guesses."""
    with closing(
        http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S, source_address=(source, 0))
    ) as connection:
        if password is not None:
            headers["Authorization"] = f"Basic {b64encode(f'{USER}:{password}'.encode()).decode()}"
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        response.read()
        return response
