"""What a measurement stands on: directories, and a config of corptokend with its limits lifted."""

import os
import shutil
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CLIENT_ID = "ding-bench"
CLIENT_SECRET = "bench-client-secret"
# Tokens are due for refresh after that much of their life: the default.
REFRESH_AT = 0.7


def corp_ids(count: int) -> list[str]:
    """As long as the real ones."""
    return [f"ding{number:016d}" for number in range(count)]


class Directories:
    """State and config on a disk, tokens on a tmpfs. All of it goes with the `with` block."""

    def __init__(self, scratch: Path | None = None, tmpfs: Path = Path("/dev/shm")):
        scratch = scratch or REPOSITORY / "target"
        scratch.mkdir(parents=True, exist_ok=True)
        self.disk = Path(tempfile.mkdtemp(prefix="bench-", dir=scratch))
        self.memory = Path(tempfile.mkdtemp(prefix="corptokend-bench-", dir=tmpfs))
        for directory in (self.disk, self.memory):
            directory.chmod(0o755)

    def __enter__(self) -> "Directories":
        return self

    def __exit__(self, *_) -> None:
        shutil.rmtree(self.disk)
        shutil.rmtree(self.memory)

    def fresh(self, name: str) -> Path:
        """An empty directory on the tmpfs."""
        directory = self.memory / name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        return directory


class Installation:
    """A config of corptokend, with its state and its tokens."""

    def __init__(self, directories: Directories, endpoint: str, ca: Path, name: str = "corptokend"):
        self.endpoint, self.ca = endpoint, ca
        self.dir = directories.disk / name
        self.tokens = directories.memory / name
        self.config = self.dir / "etc/config.toml"
        self.socket = self.dir / "control.sock"
        self.state = self.dir / "state/state.redb"
        shutil.rmtree(self.dir, ignore_errors=True)
        shutil.rmtree(self.tokens, ignore_errors=True)
        for directory in (self.dir, self.dir / "etc", self.dir / "state", self.tokens):
            directory.mkdir()
        self.secret = self.dir / "etc/secret"
        self.secret.touch(mode=0o600)
        self.secret.write_text(CLIENT_SECRET)

    def configure(self, apps: dict[str, list[str]], rate: str = "1000000/s", jitter: float = 0.05) -> None:
        """Saves a config with these apps and their organisations, by rename, as an editor does."""
        text = "\n".join([self._head(rate, jitter), *(self._app(name, ids) for name, ids in apps.items())])
        new = self.config.with_name(".config.toml.new")
        new.write_text(text)
        os.rename(new, self.config)

    def environment(self) -> dict[str, str]:
        """That of every command."""
        unset = ("STATE_DIRECTORY", "RUNTIME_DIRECTORY", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "JOURNAL_STREAM")
        proxies = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
        environment = {name: value for name, value in os.environ.items() if name not in unset + proxies}
        return environment | {"CORPTOKEND_CONFIG": str(self.config), "CORPTOKEND_SOCKET": str(self.socket)}

    def _head(self, rate: str, jitter: float) -> str:
        return f"""
[api]
ca_file = "{self.ca}"
max_in_flight = 64
[limits]
total = "1000000/s"
[state]
path = "{self.state}"
[control]
socket = "{self.socket}"
[log]
format = "json"
level = "warn"
[defaults]
endpoint = "{self.endpoint}"
rate = "{rate}"
refresh = {{ at = {REFRESH_AT}, jitter = {jitter} }}
[[defaults.sink]]
file = "{self.tokens}/{{app}}/{{corp_id}}"
"""

    def _app(self, name: str, ids: list[str]) -> str:
        lines = "".join(f'  "{corp_id}",\n' for corp_id in ids)
        return (
            f'[app.{name}]\nclient_id = "{CLIENT_ID}"\nclient_secret = {{ file = "{self.secret}" }}\n'
            f"corp_ids = [\n{lines}]\n"
        )
