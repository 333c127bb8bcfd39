"""Requests to object stores that fail: again after a pause, or an error that says what to do.

Which is told by the kind of fault. A service that is busy, a connection that is cut, an answer that does not
come are transient; wrong credentials, no such bucket, an object that another has replaced are not.
"""

import asyncio
import http.client
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from dali_bgaug.errors import UserError

T = TypeVar("T")
_TRANSIENT_STATUS = {408, 429, 500, 502, 503, 504}
_TRANSIENT_CODES = {
    *("InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling"),
    *("ThrottlingException", "TooManyRequests", "TooManyRequestsException"),
}
_CREDENTIALS = (
    "give credentials as the AWS tools read them: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and "
    "AWS_SESSION_TOKEN), or AWS_PROFILE; of gs:// GOOGLE_APPLICATION_CREDENTIALS"
)


@dataclass(frozen=True)
class Retries:
    """Limits of one request: how often and how long it is tried, in seconds."""

    tries: int = 9
    seconds: float = 120.0
    """No further try begins after this."""
    first_pause: float = 0.5
    """The pause doubles from try to try, and each is shortened by chance, by half at most: many processes
    that failed together do not come back together."""
    longest_pause: float = 30.0
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    """Without a byte."""

    def pauses(self) -> Iterator[float]:
        """Seconds between one try and the next."""
        for number in range(self.tries - 1):
            yield min(self.longest_pause, self.first_pause * 2**number) * random.uniform(0.5, 1)


def retried(request: Callable[[], T], url: str, what: str, retries: Retries) -> T:
    """The answer to a request, tried again after transient faults.

    what: what the request is for, as an error says it cannot be: "read", say.

    Raises:
        UserError: the last fault of all tries, or the first that is not transient.
    """
    end = time.monotonic() + retries.seconds
    pauses = retries.pauses()
    tries = 0
    while True:
        tries += 1
        try:
            return request()
        except UserError:
            raise
        except Exception as error:  # of the libraries of three stores, which share no base
            pause = next(pauses, None) if _is_transient(error) else None
            if pause is None or time.monotonic() + pause > end:
                raise _explained(error, url, what, tries) from error
        time.sleep(pause)


def _explained(error: Exception, url: str, what: str, tries: int) -> Exception:
    """The fault as a UserError; one that is no store's is a bug, and stays what it is."""
    status, code = answer(error)
    if status in (412, 416):  # the ETag that was asked for is gone, or the range is
        return changed(url)
    if (remedy := _remedy(error, status, code, tries)) is None:
        return error
    return UserError(f"{url}: cannot be {what} ({_cause(error)}){remedy}")


def _remedy(error: Exception, status: int | None, code: str, tries: int) -> str | None:
    """What to do about a fault; None if it is no store's."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    remedy = None
    if _is_transient(error):
        remedy = (
            f", tried {tries} times; look at the network, the endpoint (AWS_ENDPOINT_URL) and the store's "
            "status, then run the same command again"
        )
    elif code.startswith("ExpiredToken") or "TokenRetrievalError" in kinds:
        remedy = ": the credentials have expired; fetch new ones and run the same command again"
    elif kinds & _NO_CREDENTIALS:
        remedy = f"; {_CREDENTIALS}"
    elif status in (401, 403) or isinstance(error, PermissionError):
        remedy = f": refused; see that these credentials may do that there, or {_CREDENTIALS}"
    elif status == 404 or isinstance(error, FileNotFoundError):
        remedy = f": no such {'bucket' if code == 'NoSuchBucket' else 'object or bucket'}; check the URL"
    elif isinstance(error, OSError | ValueError) or type(error).__module__.partition(".")[0] in _LIBRARIES:
        remedy = "; check the URL, the endpoint (AWS_ENDPOINT_URL) and the region"
    return remedy


_NO_CREDENTIALS = {
    *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound")
}
_LIBRARIES = {"aiobotocore", "aiohttp", "botocore", "fsspec", "gcsfs", "google", "s3fs"}


def changed(url: str) -> UserError:
    """The error of an object that is not the one it was when its reading began."""
    return UserError(f"{url}: changed while it was being read; see what writes there, and run again")


def _is_transient(error: Exception) -> bool:
    status, code = answer(error)
    if status is not None:
        return status in _TRANSIENT_STATUS or code in _TRANSIENT_CODES
    return any(isinstance(each, tuple(_transient_kinds())) for each in _chain(error))


def _transient_kinds() -> Iterator[type[Exception]]:
    yield from (TimeoutError, asyncio.TimeoutError, ConnectionError, http.client.HTTPException)
    if "botocore" in sys.modules:  # else the fault cannot be one of its own
        from botocore.exceptions import HTTPClientError, IncompleteReadError
        from botocore.parsers import ResponseParserError

        yield from (HTTPClientError, IncompleteReadError, ResponseParserError)
    if "aiohttp" in sys.modules:
        from aiohttp import ClientError

        yield ClientError


def answer(error: Exception) -> tuple[int | None, str]:
    """The HTTP status and the store's own code of the answer that a fault was raised for."""
    for each in _chain(error):
        response: Any = getattr(each, "response", None)
        if isinstance(response, dict):  # botocore's
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return status, str(response.get("Error", {}).get("Code", ""))
        status = getattr(each, "code", None)
        if isinstance(status, int) and type(each).__module__.startswith("gcsfs"):
            return status, ""
    return None, ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """A fault and those it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _cause(error: Exception) -> str:
    """A fault in a line."""
    status, code = answer(error)
    text = " ".join(str(error).split())[:200] or type(error).__name__
    return f"{code or status}: {text}" if status is not None else f"{type(error).__name__}: {text}"
