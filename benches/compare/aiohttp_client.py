"""What a careful script does: keep-alive, 64 calls at a time, a temporary file and a rename for each token.

`aiohttp_client.py URL CA SECRET DIRECTORY < corp_ids`; it speaks HTTP/1.1, which is all that aiohttp has.
"""

import asyncio
import os
import ssl
import sys

import aiohttp


async def fetch(session: aiohttp.ClientSession, url: str, secret: str, directory: str, waiting) -> None:
    for corp_id in waiting:
        body = {"client_id": "ding-bench", "client_secret": secret, "grant_type": "client_credentials"}
        async with session.post(f"{url}/v1.0/oauth2/{corp_id}/token", json=body) as response:
            response.raise_for_status()
            token = (await response.json())["access_token"]
        temporary, path = f"{directory}/.{corp_id}.tmp", f"{directory}/{corp_id}"
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640), "w") as file:
            file.write(token)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)


async def main(url: str, ca: str, secret: str, directory: str) -> None:
    waiting = iter(sys.stdin.read().split())
    connector = aiohttp.TCPConnector(limit=64, ssl=ssl.create_default_context(cafile=ca))
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        # Each worker takes the next one from the same iterator.
        await asyncio.gather(*(fetch(session, url, secret, directory, waiting) for _ in range(64)))


asyncio.run(main(*sys.argv[1:]))
