"""botocore's synchronous HTTP session, for requests that aiobotocore's client has made (:mod:`.s3_requests`)."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

from aiobotocore.awsrequest import AioAWSResponse
from botocore.awsrequest import AWSHTTPConnection, AWSHTTPConnectionPool, AWSHTTPSConnection, AWSHTTPSConnectionPool
from botocore.httpchecksum import AwsChunkedWrapper
from botocore.httpsession import URLLib3Session

_BLOCK_BYTES = 256 * 1024  # that are sent at a time
_IDLE_CONNECTIONS = 100
_FIRST_FAILURE = 300  # of HTTP's status codes; redirections are botocore's business

_thread = threading.local()


class Session(URLLib3Session):  # type: ignore[misc] # botocore ships no types
    """Connects, and looks at certificates, as a client of aiobotocore was told to do."""

    def __init__(self, client: Any) -> None:
        http, config = client._endpoint.http_session, client.meta.config
        super().__init__(
            verify=http._verify,
            proxies=http._proxy_config._proxies,
            proxies_config=http._proxy_config.settings,
            client_cert=config.client_cert,
            timeout=(config.connect_timeout, config.read_timeout),
            max_pool_connections=_IDLE_CONNECTIONS,
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )
        self._pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
        self._manager.pool_classes_by_scheme = self._pool_classes_by_scheme

    def _get_pool_manager_kwargs(self, **options: Any) -> dict[str, Any]:
        return super()._get_pool_manager_kwargs(blocksize=_BLOCK_BYTES, **options)  # type: ignore[no-any-return]

    def exchange(self, request: Any, on_connected: Callable[[socket.socket], None]) -> Any:
        """Send a request; return the answer in aiobotocore's form, its body read unless that is a stream's.

        :param on_connected: called with the socket before anything is sent; may raise.
        :raises botocore.exceptions.HTTPClientError: when that fails.
        """
        body = request.body
        if isinstance(body, AwsChunkedWrapper):  # aiobotocore's, which only an event loop can read
            request.body = AwsChunkedWrapper(body._raw, body._checksum_cls, body._checksum_name, body._chunk_size)
        _thread.on_connected = on_connected
        response = self.send(request)
        # where older versions of aiobotocore (2.13, say) read them
        response.raw.raw_headers = [(name.encode(), value.encode()) for name, value in response.headers.items()]
        answer = AioAWSResponse(request.url, response.status_code, response.headers, response.raw)
        if not request.stream_output or response.status_code >= _FIRST_FAILURE:
            answer._content = response.content
        return answer


class _Announcing:
    """A connection that says which socket it is about to use."""

    sock: Any

    def request(self, *arguments: Any, **options: Any) -> Any:
        if self.sock is None:
            self.connect()  # type: ignore[attr-defined]
        self.sock.settimeout(None)  # what is sent, others watch; urllib3 sets another for the answer
        _thread.on_connected(self.sock)
        return super().request(*arguments, **options)  # type: ignore[misc]


class _Connection(_Announcing, AWSHTTPConnection):  # type: ignore[misc]
    pass


class _TLSConnection(_Announcing, AWSHTTPSConnection):  # type: ignore[misc]
    pass


class _Pool(AWSHTTPConnectionPool):  # type: ignore[misc]
    ConnectionCls = _Connection


class _TLSPool(AWSHTTPSConnectionPool):  # type: ignore[misc]
    ConnectionCls = _TLSConnection
