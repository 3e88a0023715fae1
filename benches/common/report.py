"""What is printed, and what of it a document keeps."""

import platform
import subprocess
from pathlib import Path


def machine() -> str:
    """The machine, in one line."""
    cpu = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    cores = len([name for name in Path("/sys/devices/system/cpu").glob("cpu[0-9]*")])
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // 1024
    return f"{cpu}, {cores} cores, {memory:,} MiB, Linux {platform.release()}"


def commit() -> str:
    said = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return said.stdout.strip() or "no commit"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown; the first column is text, the others are figures."""
    rule = ["---"] + ["--:"] * (len(head) - 1)
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *rows])


def write(document: Path, name: str, text: str) -> None:
    """Puts `text` between the document's markers of this name."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, found, rest = document.read_text().partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise SystemExit(f"{document} has no markers {begin} and {end}")
    document.write_text(f"{before}{begin}\n{text}\n{end}{after}")
