"""An object store on this machine, and a proxy before it that makes the faults of real ones."""

import http.client
import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import NamedTuple

import pytest

from dali_bgaug import storage
from dali_bgaug.retries import Retries

FAST = Retries(tries=4, seconds=20, first_pause=0.001, longest_pause=0.01, connect_timeout=5, read_timeout=2)
_numbers = count()


class Request(NamedTuple):
    method: str
    path: str
    range: str | None
    """As in `bytes=0-99`."""


@dataclass
class Fault:
    """What becomes of a request."""

    status: int | None = None
    """Answered at once, by this,"""
    code: str = "InternalError"
    """and the store's word for it."""
    cut: int | None = None
    """The connection ends after so many bytes of the answer's body."""
    wait: float = 0.0
    """Seconds before the answer."""


@dataclass
class Proxy:
    """Passes requests on to the store, but for those that `faults` has a fault for."""

    faults: Callable[[Request], Fault | None] = lambda request: None
    seen: list[Request] = field(default_factory=list)


class Bucket(NamedTuple):
    """An empty bucket of the store."""

    url: str
    proxy: Proxy
    """Before the store; it has no faults at first."""


def make_bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket; the environment leads to its store, by way of the proxy, in child processes too."""
    proxy, endpoint = _proxy()
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(storage, "RETRIES", FAST)
    proxy.faults = lambda request: None
    name = f"bucket-{next(_numbers)}"
    _request("PUT", f"/{name}")
    proxy.seen.clear()
    return Bucket(f"s3://{name}", proxy)


@lru_cache(maxsize=1)
def _store() -> str:
    """Host and port of moto's server, which is started once a process and ends with it."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    return "{}:{}".format(*server.get_host_and_port())


@lru_cache(maxsize=1)
def _proxy() -> tuple[Proxy, str]:
    """The proxy and its address: one of a process, since making a client of another takes half a second."""
    proxy = Proxy()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return proxy, f"http://127.0.0.1:{server.server_port}"


def _request(method: str, path: str, body: bytes = b"") -> None:
    connection = http.client.HTTPConnection(_store(), timeout=10)
    signed = "AWS4-HMAC-SHA256 Credential=testing/20200101/us-east-1/s3/aws4_request"  # moto reads the region
    connection.request(method, path, body, {"Authorization": signed})
    assert connection.getresponse().status == 200
    connection.close()


def put(url: str, data: bytes) -> None:
    """Write an object past everything that is tested."""
    _request("PUT", "/" + url.removeprefix("s3://"), data)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(self.command, self.path, self.headers.get("Range"))
        self.proxy.seen.append(request)
        fault = self.proxy.faults(request) or Fault()
        time.sleep(fault.wait)
        status, headers, data = self._answer(fault, body)
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("connection", "content-length", "date", "server", "transfer-encoding"):
                self.send_header(name, value)
        length = headers.get("Content-Length", len(data)) if self.command == "HEAD" else len(data)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(data[: fault.cut])
        if fault.cut is not None:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def _answer(self, fault: Fault, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if fault.status is not None:
            text = f"<Error><Code>{fault.code}</Code><Message>of the test</Message></Error>"
            return fault.status, {"Content-Type": "application/xml"}, text.encode() * (self.command != "HEAD")
        connection = http.client.HTTPConnection(_store(), timeout=10)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, dict(answer.headers), data

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


def first(times: int, fault: Fault, method: str = "GET") -> Callable[[Request], Fault | None]:
    """The first requests of a method have this fault, all others none."""
    left = [times]

    def faults(request: Request) -> Fault | None:
        if request.method != method or not left[0]:
            return None
        left[0] -= 1
        return fault

    return faults
