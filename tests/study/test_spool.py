"""A spool keeps what it was given, for its owner and for whoever comes after it."""

import errno
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from study.spool import REJECTED, Spool, left_behind
from study.spool_line import Line
from study.spool_lock import SpoolInUseError


def a_line(op: str = "rung", number: int = 0, **data: object) -> Line:
    return Line(
        op=op,
        study="s",
        study_uuid="u",
        experiment_id="1",
        parent_run_id="p",
        trial_id=number,
        number=number,
        attempt=1,
        data=data,
    )


def replayed(spool: Spool) -> list[Line | None]:
    """All lines that wait, each done."""
    lines = []
    while (entry := spool.head()) is not None:
        lines.append(entry.line)
        spool.done(entry)
    return lines


def leave_behind(folder: Path, lines: int, and_then: str = "os.kill(os.getpid(), 9)") -> None:
    """Have a process append lines to the spool `dead`, and then die."""
    code = (
        "import os, sys; from pathlib import Path; from study.spool import Spool\n"
        "from tests.study.test_spool import a_line\n"
        "spool = Spool(Path(sys.argv[1]), 'dead')\n"
        f"for number in range({lines}): spool.append(a_line(number=number))\n{and_then}"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(folder)], check=False)
    assert ended.returncode == -signal.SIGKILL


def test_lines_come_back_in_order_with_their_times(tmp_path: Path) -> None:
    lines = [a_line(number=number, loss=0.1 + number) for number in range(3)]
    with Spool(tmp_path, "w") as spool:
        for line in lines:
            spool.append(line)
        assert spool.waiting == 3
        assert replayed(spool) == lines
        assert spool.waiting == 0
        assert spool.path.stat().st_size == 0
        spool.append(lines[1])
        assert replayed(spool) == [lines[1]]
    assert list(tmp_path.iterdir()) == []


def test_a_line_survives_json_and_strange_values(tmp_path: Path) -> None:
    line = a_line(text="Zeile\nnächste \x00\u2028", nan=float("inf"), path=Path("/x"), none=None)
    with Spool(tmp_path, "w") as spool:
        spool.append(line)
        (back,) = replayed(spool)
    assert back is not None
    assert back.data == {**line.data, "path": "/x"}


def test_done_lines_stay_done_after_the_owner_has_died(tmp_path: Path) -> None:
    leave_behind(
        tmp_path, 5, "spool.done(spool.head()); spool.done(spool.head()); os.kill(os.getpid(), 9)"
    )
    (path,) = left_behind(tmp_path)
    spool = Spool.take_over(path)
    assert spool is not None
    assert spool.waiting == 3
    assert [line.number for line in replayed(spool) if line] == [2, 3, 4]
    spool.close()
    assert not path.exists()


def test_a_living_owners_spool_is_not_left_behind(tmp_path: Path) -> None:
    with Spool(tmp_path, "alive") as spool:
        spool.append(a_line())
        assert left_behind(tmp_path) == []
        assert Spool.take_over(spool.path) is None
        with pytest.raises(SpoolInUseError):
            Spool(tmp_path, "alive")
    assert left_behind(tmp_path) == [spool.path]  # closed with a line in it


def test_empty_spools_and_rejected_lines_are_not_left_behind(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / REJECTED).write_text("x\n")
    assert left_behind(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == [REJECTED]


def test_a_torn_last_line_is_dropped_without_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Spool(tmp_path, "w") as spool:
        spool.append(a_line(number=1))
        spool.append(a_line(number=2))
    with spool.path.open("ab") as file:
        file.write(b'{"op": "rung", "stu')
    with Spool(tmp_path, "w") as again:
        again.append(a_line(number=3))
        assert [line.number for line in replayed(again) if line] == [1, 2, 3]
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


@pytest.mark.parametrize(
    "damage",
    [b"garbage", b'{"op": 1}', b"\xff\xfe", b"[]", b'{"op": "rung"}', b"\x00" * 8, b"a\rb"],
)
def test_a_damaged_line_is_found_and_costs_no_other(tmp_path: Path, damage: bytes) -> None:
    with Spool(tmp_path, "w") as spool:
        for number in range(3):
            spool.append(a_line(number=number))
    first, _, last = spool.path.read_bytes().splitlines()
    spool.path.write_bytes(b"\n".join([first, damage, b"", last, b""]))
    with Spool(tmp_path, "w") as again:
        assert again.waiting == 3
        head = again.head()
        assert head is not None
        again.done(head)
        entry = again.head()
        assert entry is not None
        assert (entry.line, entry.number) == (None, 2)
        assert again.set_aside(entry).read_bytes() == damage + b"\n"
        assert [line.number for line in replayed(again) if line] == [2]
        assert again.waiting == 0


@pytest.mark.parametrize("written", [None, 10])
def test_a_full_disk_is_told_and_leaves_no_part_of_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int | None
) -> None:
    pwrite = os.pwrite

    def full(fd: int, data: bytes, offset: int) -> int:
        if written is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(fd, data[:written], offset)

    with Spool(tmp_path, "w") as spool:
        spool.append(a_line(number=1))
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", full)
            with pytest.raises(OSError, match="No space left"):
                spool.append(a_line(number=2))
        spool.append(a_line(number=3))
        assert spool.path.read_bytes().count(b"\n") == 2
        assert [line.number for line in replayed(spool) if line] == [1, 3]


def test_a_spool_closed_under_a_slow_replay_keeps_the_line(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "w")
    spool.append(a_line(number=1))
    entry = spool.head()
    assert entry is not None
    spool.close()
    spool.done(entry)
    with Spool(tmp_path, "w") as again:
        assert [line.number for line in replayed(again) if line] == [1]
