"""How botocore is to talk to S3 for us: as it does by itself, but for two habits that cost time and give nothing.

* Of each object in a listing it reads when that was written, by a parser for every way to write a time: most of what
  a listing of many objects takes.
* Before each body it asks whether that is welcome: a round trip.
"""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import Any


def quicken(filesystem: Any) -> None:
    """Set up the session of an ``S3FileSystem``; a client that it has made already stays as it is."""
    if filesystem.session is None:
        with contextlib.suppress(TypeError):  # of options that nobody knows: s3fs says so at its first request
            filesystem.session = _make_session(filesystem.kwargs)
            filesystem._session_is_owned = True  # so s3fs makes itself another one when it is told to
    session: Any = filesystem.session
    if hasattr(session, "get_component"):
        session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=read_time)
        send_at_once(session)


def send_at_once(emitter: Any) -> None:
    """Have a session, or the events of a client, not ask whether the body of a request is welcome."""
    emitter.register("before-call.s3", _drop_expect, unique_id=__name__)


def read_time(value: Any) -> datetime:
    """Read a time as botocore does, and those of listings (``2009-10-12T17:50:30.000Z``) much faster.

    :raises ValueError: when it is none.
    """
    if isinstance(value, str) and value[10:11] == "T":
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(value)
    from botocore.utils import parse_timestamp

    found: datetime = parse_timestamp(value)
    return found


def _make_session(options: dict[str, Any]) -> Any:
    from aiobotocore.session import AioSession

    return AioSession(**options)


def _drop_expect(params: dict[str, Any], **_: Any) -> None:
    params["headers"].pop("Expect", None)
