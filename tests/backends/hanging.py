"""An SFTP server, by asyncssh, that hangs while the SSH server around it goes on answering."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import asyncssh


class _Server(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return False


class _Files(asyncssh.SFTPServer):
    async def scandir(self, path: bytes) -> Any:
        await asyncio.Event().wait()
        yield


class _Session(asyncssh.SSHServerSession[bytes]):
    def subsystem_requested(self, subsystem: str) -> bool:
        return True


class _SilentServer(_Server):
    def session_requested(self) -> Any:
        return _Session()


@contextlib.contextmanager
def serve_hanging_sftp(*, channels: bool) -> Iterator[int]:
    """Run a server that answers no listing, or not even the opening of a channel; yield its port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    keys = [asyncssh.generate_private_key("ssh-ed25519")]
    how = {"server_factory": _SilentServer} if channels else {"server_factory": _Server, "sftp_factory": _Files}

    async def listen() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen("127.0.0.1", 0, server_host_keys=keys, **how)

    server = asyncio.run_coroutine_threadsafe(listen(), loop).result(30)
    try:
        yield server.get_port()
    finally:
        asyncio.run_coroutine_threadsafe(_end(server), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)


async def _end(server: asyncssh.SSHAcceptor) -> None:
    server.close()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.sleep(0)  # in which they end
