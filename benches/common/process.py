"""What a process, and those that it started, cost."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Cost:
    """User and system time of the whole family, in seconds, and the rest."""

    user_s: float
    system_s: float
    wall_s: float
    peak_kib: int
    status: int
    output: str
    # It did not end within its time, and was ended.
    ended_by_us: bool

    @property
    def cpu_s(self) -> float:
        return self.user_s + self.system_s


def high_water_kib(pid: int) -> int:
    """VmHWM: the most memory that the process ever had. (ru_maxrss is inherited from whoever forked it.)"""
    return _kib(pid, "VmHWM:")


def resident_kib(pid: int) -> int:
    """VmRSS: the memory that the process has."""
    return _kib(pid, "VmRSS:")


def cpu_s(pid: int) -> float:
    """User and system time of a process that runs, all threads."""
    # The name of the program may hold spaces; what follows it does not.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(command: list[str], *, timeout_s: float = 600, **options) -> Cost:
    """Runs a command to its end, or ends it and all that it started after `timeout_s`."""
    started = time.monotonic()
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True, **options
    )  # fmt: skip
    output: list[str] = []
    reader = threading.Thread(target=lambda: output.append(process.stdout.read()))
    reader.start()
    peak_kib, ended_by_us = 0, False
    try:
        while True:
            # `wait4` after the last look: it reaps, and what is reaped has no memory to look at.
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            if not ended_by_us and time.monotonic() - started > timeout_s:
                ended_by_us = True
                _end(process.pid)
            peak_kib = max(peak_kib, sum(high_water_kib(member) for member in _family(process.pid)))
            time.sleep(0.01)
    except BaseException:
        # A group of its own does not hear of the terminal's Ctrl-C.
        _end(process.pid)
        raise
    wall_s = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    # Its children may hold its output open for longer than it lives.
    reader.join(max(timeout_s - wall_s, 1))
    if reader.is_alive():
        ended_by_us = True
        _end(process.pid)
        reader.join()
    return Cost(usage.ru_utime, usage.ru_stime, wall_s, peak_kib, process.returncode, output[0], ended_by_us)


def _end(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _family(pid: int) -> list[int]:
    """The process and its living descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid] + [member for child in children for member in _family(int(child))]


def _kib(pid: int, key: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(key)), 0)
