"""What a list, and a verification by listing, of a large repository cost: requests, seconds, memory.

    python benchmarks/listing.py [BACKUPS [NEW_FILES [LIVE_FILES]]]

The repository is made up, in a store in memory that counts requests and, as object stores do, lists a tree as cheaply
as a folder. Each backup has NEW_FILES (100) shared files of its own, and names the newest LIVE_FILES (2,000) of all.
A request takes no time here: add the store's. A listing of 1,000 names is one request on most object stores.
"""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from typing import Any

from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_rocksdb.core.format.backup_meta import BackupFile, BackupMeta, encode_backup_meta
from airflow_provider_rocksdb.core.repository_usage import list_usage
from airflow_provider_rocksdb.core.verify import verify_backups

PAGE = 1000


class CountingFileSystem(MemoryFileSystem):
    """A store that counts requests: listings, their pages of 1,000 names, and reads."""

    cachable = False

    def __init__(self) -> None:
        super().__init__(global_store=False, skip_instance_cache=True)
        self.requests: Counter[str] = Counter()
        self.refused = ""

    def _count_listing(self, entries: Any) -> Any:
        self.requests["listing"] += 1
        self.requests["page"] += max(1, -(-len(entries) // PAGE))
        return entries

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        """Count, or refuse."""
        if self.refused and path.endswith(self.refused):
            raise PermissionError(path)
        return self._count_listing(super().ls(path, detail=detail, **kwargs))

    def find(self, path: str, *args: Any, **kwargs: Any) -> Any:
        """Count."""
        return self._count_listing(super().find(path, *args, **kwargs))

    def cat_file(self, path: str, *args: Any, **kwargs: Any) -> Any:
        """Count."""
        self.requests["read"] += 1
        return super().cat_file(path, *args, **kwargs)

    def info(self, path: str, **kwargs: Any) -> Any:
        """Count."""
        self.requests["info"] += 1
        return super().info(path, **kwargs)


def fill(store: MemoryFileSystem, backups: int, new_files: int, live_files: int) -> None:
    """Make a repository in which each backup has so many new shared files, and names so many of all."""
    for backup_id in range(1, backups + 1):
        last = backup_id * new_files
        own = [f"private/{backup_id}/{name}" for name in ("CURRENT", "MANIFEST-000001", "000002.log")]
        shared = [
            f"shared_checksum/{number:06d}_sABCDEFGHIJKLMNOPQRST_7.sst"
            for number in range(max(0, last - live_files), last)
        ]
        store.pipe({f"/r/{name}": b"content" for name in (*own, *shared[-new_files:])})
        meta = BackupMeta(backup_id, backup_id, b"", tuple(BackupFile(name, 1, 7) for name in (*own, *shared)))
        store.pipe_file(f"/r/meta/{backup_id}", encode_backup_meta(meta))


def measure(name: str, work: Any, store: CountingFileSystem) -> None:
    """Do something and print what it took."""
    store.requests.clear()
    memory, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    counts = store.requests
    print(
        f"{name:<22} {counts['listing']:>8} {counts['page']:>6} {counts['read']:>6} {counts['info']:>5} "
        f"{seconds:>8.1f} {grown:>8.0f}"
    )


def main() -> None:
    """Print the table."""
    backups, new_files, live_files = ([int(text) for text in sys.argv[1:]] + [1000, 100, 2000][len(sys.argv) - 1 :])[:3]
    store = CountingFileSystem()
    fill(store, backups, new_files, live_files)
    print(f"{backups} backups, {backups * new_files} shared files, {live_files} of them in a backup")
    print(f"{'':<22} listings  pages  reads  info  seconds   MB more")
    measure("list", lambda: list_usage(store, "/r"), store)
    measure("verify --all", lambda: verify_backups(store, "/r", all_backups=True), store)
    measure("verify (the newest)", lambda: verify_backups(store, "/r"), store)


if __name__ == "__main__":
    main()
