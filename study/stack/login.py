"""Who may open the pages: one login for people, one token for workers."""

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass, field

from models.errors import InputError

USER = "bnvit"
SHORTEST_PASSWORD = 12  # characters
SHORTEST_TOKEN = 24  # characters; its tries are not limited, so it must be beyond guessing
_SALT_BYTES = 16
# It stands in nginx's configuration and in files of variables, which shells read, too.
_TOKEN = re.compile(rf"[A-Za-z0-9._-]{{{SHORTEST_TOKEN},}}")


def new_secret() -> str:
    """A password beyond guessing (192 bits), of letters, digits, - and _."""
    return secrets.token_urlsafe(24)


@dataclass(frozen=True)
class Login:
    """What the proxy asks for. Raises InputError for a password or token that is too weak."""

    password: str = field(repr=False)  # of people, as user `USER`
    token: str = field(repr=False)  # of workers, as a bearer token
    session: str = field(repr=False, default_factory=new_secret)  # the cookie of who has logged in

    def __post_init__(self) -> None:
        if len(self.password) < SHORTEST_PASSWORD:
            raise InputError(
                f"the password of the pages is shorter than {SHORTEST_PASSWORD} characters; "
                "take a longer one"
            )
        if not _TOKEN.fullmatch(self.token):
            raise InputError(
                f"the workers' password must have {SHORTEST_TOKEN} characters or more, all of them "
                "letters, digits, '.', '_' or '-'; take one of: openssl rand -hex 24"
            )

    def users_file(self) -> str:
        """The file of users as nginx reads it.

        The hash is a quick one ({SSHA}: salted SHA-1, RFC 2307), as nginx asks for it while others
        wait; what keeps guesses away is the limit on tries, and that only the proxy reads the file.
        """
        salt = secrets.token_bytes(_SALT_BYTES)
        digest = hashlib.sha1(self.password.encode() + salt, usedforsecurity=False).digest()
        return f"{USER}:{{SSHA}}{base64.b64encode(digest + salt).decode()}\n"
