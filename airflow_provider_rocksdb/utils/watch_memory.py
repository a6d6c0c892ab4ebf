"""What a watcher has seen, kept in its asset's state store where Airflow has one (3.3), else in memory alone."""

from __future__ import annotations

import hashlib
from typing import Any


class Memory:
    """Of one watcher; ``seen`` is None as long as nothing was.

    :param store: the trigger's ``asset_state_store``.
    """

    def __init__(self, store: Any) -> None:
        self.seen: dict[str, Any] | None = None
        self._kept: dict[str, Any] | None = None
        self._key = ""
        # two assets that are watched by equal triggers share one, which has then no store of its own
        self._stores = [] if store is None else [*getattr(store, "_by_name", {}).values()] or [store]

    async def recall(self, place: str) -> None:
        """Take up what was seen of a place, unless it is known."""
        key = f"rocksdb_backups_{hashlib.sha256(place.encode()).hexdigest()[:16]}"
        if key == self._key:
            return
        values = [await store.aget(key) for store in self._stores]
        self.seen = self._kept = next((value for value in values if _is_memory(value)), None)
        self._key = key

    async def keep(self) -> None:
        """Store what was seen, if it is not."""
        if self.seen == self._kept:
            return
        for store in self._stores:
            await store.aset(self._key, self.seen)
        self._kept = self.seen


def _is_memory(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("metas"), dict) and isinstance(value.get("newest"), list)
