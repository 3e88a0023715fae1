"""A daemon as systemd sees it: when it was ready, and when its scheduler came by."""

import http.client
import json
import os
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

import process
from directories import Installation

# asm-generic/socket.h; Python names it on some platforms only.
SO_TIMESTAMPNS = 35


class _OverUnix(http.client.HTTPConnection):
    def __init__(self, path: Path):
        super().__init__("localhost")
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


class Daemon:
    """`corptokend run`. With `beat_ms` its scheduler says so often that it came by: `longest_gap_ms` is then known."""

    def __init__(self, binary: Path, installation: Installation, beat_ms: int | None = None):
        self.installation = installation
        self.ready_at: float | None = None
        self._beats: list[float] = []
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        # The kernel notes when a message was sent: this process may be late to read it.
        self._notify.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        address = installation.dir / "notify.sock"
        address.unlink(missing_ok=True)
        self._notify.bind(str(address))
        environment = installation.environment() | {"NOTIFY_SOCKET": str(address)}
        if beat_ms is not None:
            # The daemon says it twice as often as systemd asks for.
            environment["WATCHDOG_USEC"] = str(2 * beat_ms * 1000)
        self.log = open(installation.dir / "log", "a+")
        self.started_at = time.time()
        self.process = subprocess.Popen(
            [str(binary), "run"], env=environment, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log
        )
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_until_ready(self, timeout_s: float = 120) -> float:
        """How long it took from exec to READY, in seconds."""
        deadline = time.monotonic() + timeout_s
        while self.ready_at is None:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the daemon is not ready; its log ends with:\n{self._end_of_log()}")
            time.sleep(0.005)
        return self.ready_at - self.started_at

    def get(self, path: str):
        """An answer of the control socket."""
        connection = _OverUnix(self.installation.socket)
        connection.request("GET", path)
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer

    def cpu_s(self) -> float:
        return process.cpu_s(self.pid)

    def resident_mib(self) -> float:
        return process.resident_kib(self.pid) / 1024

    def peak_mib(self) -> float:
        return process.high_water_kib(self.pid) / 1024

    def forget_peak(self) -> None:
        """From here on, the peak is counted anew (proc(5), clear_refs)."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def longest_gap_ms(self, since: float, until: float) -> float:
        """The longest that the scheduler did not come by between two moments, beyond what it was asked for."""
        beats = [since, *(beat for beat in self._beats if since <= beat <= until), until]
        return max(later - earlier for earlier, later in zip(beats, beats[1:])) * 1000

    def stop(self) -> None:
        self.process.terminate()
        if self.process.wait(timeout=30) != 0:
            raise SystemExit(f"the daemon ended with {self.process.returncode}; its log:\n{self._end_of_log()}")
        self._notify.shutdown(socket.SHUT_RD)
        self._listener.join()
        self._notify.close()
        self.log.close()

    def _listen(self) -> None:
        while True:
            message, ancillary, _, _ = self._notify.recvmsg(4096, socket.CMSG_SPACE(16))
            if not ancillary:
                return
            seconds, nanos = struct.unpack("qq", ancillary[0][2])
            if b"WATCHDOG=1" in message:
                self._beats.append(seconds + nanos / 1e9)
            elif b"READY=1" in message and self.ready_at is None:
                self.ready_at = seconds + nanos / 1e9

    def _end_of_log(self) -> str:
        self.log.seek(0)
        return self.log.read()[-4000:]
