"""A store over SSH for a test: `python tests/sftp_server.py FOLDER` prints the port it listens at.

It lets in who has the key that it writes to FOLDER/key, and shows them FOLDER/store alone.
"""

import asyncio
import os
import sys
from functools import partial
from pathlib import Path

import asyncssh


async def serve(folder: Path) -> None:
    store = folder / "store"
    store.mkdir()
    key, host_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    key.write_private_key(folder / "key")
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[host_key],
        authorized_client_keys=asyncssh.import_authorized_keys(key.export_public_key().decode()),
        sftp_factory=partial(asyncssh.SFTPServer, chroot=os.fsencode(store)),
    )
    print(server.get_port(), flush=True)  # noqa: T201
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
