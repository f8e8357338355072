"""The lock on a spool's file, which its owner's death frees."""

import errno
import fcntl
import os
import time
from pathlib import Path

PATIENCE_S = 2.0  # somebody who looks for spools left behind holds each for a moment


class SpoolInUseError(OSError):
    """Another process holds the spool."""


def locked(path: Path, must_exist: bool) -> int:
    """The descriptor of `path`, opened and locked.

    One that must exist is refused at once where somebody else has the lock: SpoolInUseError.
    """
    flags = os.O_RDWR if must_exist else os.O_RDWR | os.O_CREAT
    until_s = time.monotonic() + (0 if must_exist else PATIENCE_S)
    while True:
        fd = os.open(path, flags, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:  # else its last owner has just deleted it
                return fd
        except BlockingIOError as error:
            if time.monotonic() >= until_s:
                os.close(fd)
                raise SpoolInUseError(errno.EBUSY, "in use", str(path)) from error
        os.close(fd)
        time.sleep(0.02)
