"""Who is compared: each fetches a token for every corp_id, and leaves it in a file of its own, within a time limit."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from nginx import VAULT_TOKEN, Nginx
from process import Cost, measure
from directories import CLIENT_ID, CLIENT_SECRET, Installation, REPOSITORY, Directories, corp_ids

HERE = Path(__file__).resolve().parent
BODY = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "grant_type": "client_credentials"}


@dataclass
class Contender:
    """`run` fetches and publishes so many tokens within so many seconds; it returns what that cost and the directory of
    the files."""

    name: str
    version: str
    count: int
    run: Callable[[Directories, Nginx, int, float], tuple[Cost, Path]]


def version_of(command: list[str]) -> str:
    try:
        output = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=10)
    except subprocess.TimeoutExpired:
        return "?"
    return ((output.stdout or output.stderr).splitlines() or ["?"])[0].strip()


def corptokend(binary: Path, count: int) -> Contender:
    def run(directories: Directories, nginx: Nginx, count: int, limit_s: float) -> tuple[Cost, Path]:
        installation = Installation(directories, nginx.url, nginx.ca)
        installation.configure({"bench": corp_ids(count)})
        cost = measure([str(binary), "once"], env=installation.environment(), timeout_s=limit_s)
        return cost, installation.tokens / "bench"

    return Contender("corptokend once", version_of([str(binary), "--version"]), count, run)


def curl(count: int, parallel: int) -> Contender | str:
    if missing := [program for program in ("curl", "jq", "xargs") if shutil.which(program) is None]:
        return f"curl + jq + mv: {', '.join(missing)} not found, skipped"

    def run(directories: Directories, nginx: Nginx, count: int, limit_s: float) -> tuple[Cost, Path]:
        files = directories.fresh("curl")
        (directories.memory / "body.json").write_text(json.dumps(BODY))
        (directories.memory / "ids").write_text("\n".join(corp_ids(count)))
        one = (
            f"curl -sSf --cacert {nginx.ca} -H content-type:application/json -d @{directories.memory}/body.json "
            f"{nginx.url}/v1.0/oauth2/$1/token | jq -ej .access_token >{files}/.$1.tmp && mv {files}/.$1.tmp {files}/$1"
        )
        command = ["xargs", "-a", f"{directories.memory}/ids", "-P", str(parallel), "-n1", "sh", "-c", one, "sh"]
        return measure(command, timeout_s=limit_s), files

    version = f"{' '.join(version_of(['curl', '--version']).split()[:2])}, {version_of(['jq', '--version'])}"
    return Contender(f"curl + jq + mv, xargs -P{parallel}", version, count, run)


def aiohttp(count: int) -> Contender | str:
    environment = REPOSITORY / "target/bench-venv"
    python = environment / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "aiohttp"]
    try:
        subprocess.run(install, stdin=subprocess.DEVNULL, check=True, timeout=120)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return "aiohttp: cannot be installed from PyPI, skipped"

    def run(directories: Directories, nginx: Nginx, count: int, limit_s: float) -> tuple[Cost, Path]:
        files = directories.fresh("aiohttp")
        ids = directories.memory / "ids"
        ids.write_text("\n".join(corp_ids(count)))
        script = [str(python), str(HERE / "aiohttp_client.py"), nginx.url, str(nginx.ca), CLIENT_SECRET, str(files)]
        return measure(["sh", "-c", f'exec "$@" <{ids}', "sh", *script], timeout_s=limit_s), files

    version = version_of([str(python), "-c", "import aiohttp, sys; print(aiohttp.__version__, 'on', *sys.version.split()[:1])"])
    return Contender("aiohttp script", version, count, run)


def vault_agent(program: str, count: int) -> Contender | str:
    """OpenBao's or Vault's agent: a template for each secret, rendered once."""
    if shutil.which(program) is None:
        return f"{program} agent: {program} not found on PATH, skipped"

    def run(directories: Directories, nginx: Nginx, count: int, limit_s: float) -> tuple[Cost, Path]:
        files = directories.fresh(program)
        config = directories.memory / f"{program}.hcl"
        (directories.memory / "vault-token").write_text(VAULT_TOKEN)
        config.write_text(
            f'exit_after_auth = true\nvault {{ address = "{nginx.url}" ca_cert = "{nginx.ca}" }}\n'
            f'auto_auth {{ method "token_file" {{ config = {{ token_file_path = "{directories.memory}/vault-token" }} }} }}\n'
            + "".join(template(files, corp_id) for corp_id in corp_ids(count))
        )
        return measure([program, "agent", f"-config={config}", "-log-level=error"], timeout_s=limit_s), files

    return Contender(f"{program} agent", version_of([program, "version"]), count, run)


def consul_template(count: int) -> Contender | str:
    program = "consul-template"
    if shutil.which(program) is None:
        return f"{program}: not found on PATH, skipped"

    def run(directories: Directories, nginx: Nginx, count: int, limit_s: float) -> tuple[Cost, Path]:
        files = directories.fresh(program)
        config = directories.memory / "consul-template.hcl"
        config.write_text(
            f'vault {{ address = "{nginx.url}" token = "{VAULT_TOKEN}" renew_token = false\n'
            f'ssl {{ ca_cert = "{nginx.ca}" }} }}\n'
            + "".join(template(files, corp_id) for corp_id in corp_ids(count))
        )
        return measure([program, "-once", f"-config={config}", "-log-level=err"], timeout_s=limit_s), files

    return Contender(program, version_of([program, "-version"]), count, run)


def template(files: Path, corp_id: str) -> str:
    """A secret of its own for each tenant, as consul-template and both agents write it."""
    content = f'{{{{ with secret "secret/data/{corp_id}" }}}}{{{{ .Data.data.access_token }}}}{{{{ end }}}}'
    return f'template {{ destination = "{files / corp_id}" perms = "0640" contents = <<T\n{content}\nT\n}}\n'


def floor_of_calls(directories: Directories, nginx: Nginx, count: int) -> tuple[Cost, float]:
    """The least that calls can cost: h2load, one connection, 64 streams. Returns its calls a second, too."""
    (directories.memory / "body.json").write_text(json.dumps(BODY))
    url = f"{nginx.url}/v1.0/oauth2/ding0000000000000000/token"
    command = ["h2load", "-c1", "-m64", f"-n{count}", "-d", f"{directories.memory}/body.json"]
    cost = measure([*command, "-H", "content-type: application/json", url])
    if f"{count} succeeded" not in cost.output:
        raise SystemExit(f"h2load's calls failed:\n{cost.output}")
    rate = next(line.split()[3] for line in cost.output.splitlines() if line.startswith("finished in"))
    return cost, float(rate)


def floor_of_files(directories: Directories, program: Path, count: int, length: int) -> Cost:
    """The least that files can cost: a plain loop on the same tmpfs."""
    return measure([str(program), str(directories.fresh("plain")), str(count), str(length)])


def compile_plain_loop(directories: Directories) -> Path:
    program = directories.disk / "plain_loop"
    rustc = os.environ.get("RUSTC", "rustc")
    subprocess.run([rustc, "-O", "--edition", "2024", "-o", str(program), str(HERE / "plain_loop.rs")], check=True)
    return program
