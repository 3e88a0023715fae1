"""A neutral endpoint: nginx with TLS and HTTP/2 that answers every call with a token of its own."""

import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

# As long as the real ones. What Vault's clients read is always the same.
TOKEN = "bench0123456789abcdef0123456789abcdef"
# Of nginx's variables: another with each call. One token for two organisations is the sign of a broken endpoint.
A_TOKEN = "bench$request_id"
LIFETIME_S = 7200


def is_token(text: str) -> bool:
    """Whether this is a whole token."""
    return re.fullmatch("bench[0-9a-f]{32}", text) is not None


# The token with which Vault's clients ask.
VAULT_TOKEN = "bench-root-token"

# What Vault's clients read instead: one secret, whatever its name.
SECRETS = {
    "/v1/secret/data/": {
        "lease_duration": 0,
        "renewable": False,
        "data": {"data": {"access_token": TOKEN}, "metadata": {"version": 1, "destroyed": False, "deletion_time": ""}},
    },
    "/v1/sys/internal/ui/mounts/secret": {"data": {"path": "secret/", "type": "kv", "options": {"version": "2"}}},
    "/v1/auth/token/lookup-self": {
        "request_id": "7f2a0a5e-5a7c-4f52-9f6e-0d5f0d7b1c11",
        "lease_id": "",
        "lease_duration": 0,
        "renewable": False,
        # As OpenBao's API documents it. An agent that misses `id` or `type` asks again for ever.
        "data": {
            "accessor": "8609694a-cdbc-db9b-d345-e782dbb562ed",
            "creation_time": 1523979354,
            "creation_ttl": 86400,
            "display_name": "token",
            "entity_id": "",
            "expire_time": "2099-01-01T00:00:00Z",
            "explicit_max_ttl": 0,
            "id": VAULT_TOKEN,
            "issue_time": "2018-04-17T15:35:54Z",
            "meta": None,
            "num_uses": 0,
            "orphan": True,
            "path": "auth/token/create",
            "policies": ["default"],
            "renewable": False,
            "ttl": 86400,
            "type": "service",
        },
        "wrap_info": None,
        "warnings": None,
        "auth": None,
    },
}

CONFIG = """
{user}
worker_processes auto;
daemon off;
pid {dir}/nginx.pid;
error_log {dir}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    default_type application/json;
    client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
    keepalive_requests {keepalive_requests};
    keepalive_timeout 1h;
    server {{
        listen 127.0.0.1:{port} ssl http2;
        ssl_certificate {dir}/cert.pem;
        ssl_certificate_key {dir}/key.pem;
        ssl_protocols TLSv1.2 TLSv1.3;
{locations}
    }}
    server {{ listen 127.0.0.1:{status_port}; location / {{ stub_status; }} }}
}}
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Nginx:
    """A running nginx. It ends with the `with` block."""

    def __init__(self, directory: Path, keepalive_requests: int):
        self.dir = directory
        self.dir.mkdir(parents=True)
        self.keepalive_requests = keepalive_requests
        self.port, self.status_port = free_port(), free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.ca = self.dir / "cert.pem"
        self._make_certificate()
        self._configure()

    def __enter__(self) -> "Nginx":
        program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
        if program is None:
            raise SystemExit("nginx is not installed: apt-get install nginx-light")
        command = [program, "-e", f"{self.dir}/error.log", "-p", str(self.dir), "-c", f"{self.dir}/nginx.conf"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"nginx does not start:\n{(self.dir / 'error.log').read_text()}")
            time.sleep(0.05)
        self._asked = 0
        return self

    def __exit__(self, *_) -> None:
        self.process.terminate()
        self.process.wait()

    def served(self) -> tuple[int, int]:
        """How many connections and requests there were; the questions themselves are not counted."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.status_port}/") as answer:
            _, handled, requests = map(int, answer.read().decode().splitlines()[2].split())
        self._asked += 1
        return handled - self._asked, requests - self._asked

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.status_port), timeout=1).close()
        except OSError:
            return False
        return True

    def _make_certificate(self) -> None:
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
        command += ["-addext", "basicConstraints=critical,CA:FALSE"]
        command += ["-keyout", f"{self.dir}/key.pem", "-out", f"{self.dir}/cert.pem"]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)

    def _configure(self) -> None:
        answer = json.dumps({"access_token": A_TOKEN, "expires_in": LIFETIME_S})
        answers = {"/v1.0/oauth2/": answer} | {path: json.dumps(secret) for path, secret in SECRETS.items()}
        text = CONFIG.format(
            user=f"user {pwd.getpwnam('nobody').pw_name} nogroup;" if os.geteuid() == 0 else "",
            dir=self.dir,
            keepalive_requests=self.keepalive_requests,
            port=self.port,
            status_port=self.status_port,
            locations="\n".join(f"        location {path} {{ return 200 '{text}'; }}" for path, text in answers.items()),
        )
        (self.dir / "nginx.conf").write_text(text)
