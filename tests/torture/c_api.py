"""RocksDB by its C API (``rocksdb/c.h``): other versions than rocksdict's, and two-phase commit."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
from collections.abc import Iterable
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_void_p
from typing import Any

from airflow_provider_rocksdb.core.paths import DatabasePaths
from tests.torture.kinds import SETTINGS, Engine, Kind

_PUT = [c_void_p, c_void_p, c_char_p, c_size_t, c_char_p, c_size_t]
_OPEN = [c_char_p, c_int, POINTER(c_char_p), POINTER(c_void_p), POINTER(c_void_p)]
_CALLS: dict[str, tuple[Any, list[Any]]] = {  # result and arguments; a last "char** errptr" is left out
    "get_options_from_string": (None, [c_void_p, c_char_p, c_void_p]),
    "open_column_families": (c_void_p, [c_void_p, *_OPEN]),
    "transactiondb_open_column_families": (c_void_p, [c_void_p, c_void_p, *_OPEN]),
    "write": (None, [c_void_p, c_void_p, c_void_p]),
    "transactiondb_write": (None, [c_void_p, c_void_p, c_void_p]),
    "delete_file_in_range_cf": (None, _PUT),
    "transaction_set_name": (None, [c_void_p, c_char_p, c_size_t]),
    "transaction_put_cf": (None, _PUT),
    "transaction_prepare": (None, [c_void_p]),
    "transaction_commit": (None, [c_void_p]),
}
_SURE_CALLS: dict[str, tuple[Any, list[Any]]] = {  # those that cannot fail
    "options_create": (c_void_p, []),
    "options_set_create_if_missing": (None, [c_void_p, c_int]),
    "options_set_create_missing_column_families": (None, [c_void_p, c_int]),
    "writeoptions_create": (c_void_p, []),
    "transactiondb_options_create": (c_void_p, []),
    "transaction_options_create": (c_void_p, []),
    "transaction_begin": (c_void_p, [c_void_p, c_void_p, c_void_p, c_void_p]),
    "transaction_destroy": (None, [c_void_p]),
    "writebatch_create": (c_void_p, []),
    "writebatch_clear": (None, [c_void_p]),
    "writebatch_put_cf": (None, _PUT),
}


def find_library(engine: Engine) -> str | None:
    """Where a version's shared library is; None when it is not installed."""
    if engine == "6.29":  # which aimrocks brings along
        spec = importlib.util.find_spec("aimrocks")
        path = (
            os.path.join(spec.submodule_search_locations[0], "librocksdb.so")
            if spec and spec.submodule_search_locations
            else ""
        )
        return path if os.path.exists(path) else None
    try:
        ctypes.CDLL("librocksdb.so.7.8")
    except OSError:
        return None
    return "librocksdb.so.7.8"


class CApi:
    """The calls of a shared library, by their names without ``rocksdb_``; an error is raised."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def __getattr__(self, name: str) -> Any:
        """Declare a call when it is first used: not every version has all of them."""
        function = getattr(self._library, f"rocksdb_{name}")
        call: Any = function
        if name in _SURE_CALLS:
            function.restype, function.argtypes = _SURE_CALLS[name]
        else:
            function.restype, arguments = _CALLS[name]
            function.argtypes = [*arguments, POINTER(c_char_p)]
            call = functools.partial(self._call, name, function)
        setattr(self, name, call)
        return call

    @staticmethod
    def _call(name: str, function: Any, *arguments: Any) -> Any:
        error = c_char_p()
        result = function(*arguments, byref(error))
        if error.value is not None:
            raise OSError(f"rocksdb_{name}: {error.value.decode(errors='replace')}")
        return result


class CDatabase:
    """A database of one of those versions; a TransactionDB for the kinds with two-phase commit."""

    def __init__(self, kind: Kind, paths: DatabasePaths) -> None:
        path = find_library(kind.engine)
        if path is None:
            raise FileNotFoundError(f"no shared library of RocksDB {kind.engine}")
        self._api = api = CApi(ctypes.CDLL(path))
        settings = SETTINGS | dict(kind.settings) | {"block_based_table_factory": "{format_version=5}"}
        if paths.wal_dir:
            settings["wal_dir"] = paths.wal_dir
        options = api.options_create()
        text = ";".join(f"{name}={value}" for name, value in settings.items())
        api.get_options_from_string(api.options_create(), text.encode(), options)
        api.options_set_create_if_missing(options, 1)
        api.options_set_create_missing_column_families(options, 1)
        count = len(kind.families)
        names = (c_char_p * count)(*(name.encode() for name in kind.families))
        family_options, handles = (c_void_p * count)(*[options] * count), (c_void_p * count)()
        tail = (paths.db_dir.encode(), count, names, family_options, handles)
        self._is_transactional = kind.feature == "two_phase"
        if self._is_transactional:
            transaction_db_options = api.transactiondb_options_create()
            self._database = api.transactiondb_open_column_families(options, transaction_db_options, *tail)
        else:
            self._database = api.open_column_families(options, *tail)
        self._handles = dict(zip(kind.families, handles, strict=True))
        self._batch, self._write_options = api.writebatch_create(), api.writeoptions_create()
        self._transaction_options = api.transaction_options_create()
        self._transactions: dict[str, Any] = {}

    def write(self, entries: Iterable[tuple[str, bytes, bytes]]) -> None:
        self._api.writebatch_clear(self._batch)
        for family, key, value in entries:
            self._api.writebatch_put_cf(self._batch, self._handles[family], key, len(key), value, len(value))
        write = self._api.transactiondb_write if self._is_transactional else self._api.write
        write(self._database, self._write_options, self._batch)

    def prepare(self, name: str, entries: Iterable[tuple[str, bytes, bytes]]) -> None:
        api = self._api
        transaction = api.transaction_begin(self._database, self._write_options, self._transaction_options, None)
        api.transaction_set_name(transaction, name.encode(), len(name))
        for family, key, value in entries:
            api.transaction_put_cf(transaction, self._handles[family], key, len(key), value, len(value))
        api.transaction_prepare(transaction)
        self._transactions[name] = transaction

    def commit(self, name: str) -> None:
        transaction = self._transactions.pop(name)
        self._api.transaction_commit(transaction)
        self._api.transaction_destroy(transaction)

    def delete_files(self, families: Iterable[str], last: bytes) -> None:
        for family in families:
            self._api.delete_file_in_range_cf(self._database, self._handles[family], b"", 0, last, len(last))

    def create(self, family: str) -> None:
        raise NotImplementedError

    drop = create

    def ingest(self, path: str, entries: Iterable[tuple[str, bytes, bytes]]) -> None:
        raise NotImplementedError
