"""A few requests to Prefect's server: importing Prefect for them takes two seconds."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit


class ApiError(OSError):
    """The server could not be reached, or refused.

    Attributes:
        status: HTTP status; None without an answer.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """Prefect's server at one address.

    Args:
        url: ends in `/api`.
        login: `user:password`, where the server asks for one.
        timeout_s: how long one answer may take.
    """

    def __init__(self, url: str, login: str | None, *, timeout_s: float = 10.0) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port
        self._path = parts.path.rstrip("/")
        self._timeout_s = timeout_s
        self._headers = {"Content-Type": "application/json"}
        if login is not None:
            token = base64.b64encode(login.encode()).decode()
            self._headers["Authorization"] = f"Basic {token}"
        self._client = str(uuid.uuid4())
        self._csrf: str | None = None

    def get(self, path: str) -> Any:
        """GET; returns the decoded answer.

        Raises:
            ApiError: no answer, or a refusal.
        """
        return self._request("GET", path, None, {})

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """POST; returns the decoded answer. Asks for a CSRF token where the server wants one.

        Raises:
            ApiError: no answer, or a refusal.
        """
        try:
            return self._request("POST", path, body, self._csrf_headers())
        except ApiError as error:
            if error.status != 403:
                raise
        self._csrf = self.get(f"/csrf-token?client={self._client}")["token"]
        return self._request("POST", path, body, self._csrf_headers())

    def healthy(self) -> bool:
        """Whether the server answers its health check."""
        with contextlib.suppress(ApiError):
            return self.get("/health") is True
        return False

    def _csrf_headers(self) -> dict[str, str]:
        if self._csrf is None:
            return {}
        return {"Prefect-Csrf-Client": self._client, "Prefect-Csrf-Token": self._csrf}

    def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]
    ) -> Any:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        try:
            connection.request(
                method,
                self._path + path,
                body=None if body is None else json.dumps(body),
                headers={**self._headers, **headers},
            )
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            where = f"{self._host}:{self._port}"
            raise ApiError(f"{where}: {error or type(error).__name__}") from error
        finally:
            connection.close()
        if answer.status >= 400:
            raise ApiError(f"{method} {path}: {answer.status} {text[:300]}", answer.status)
        return json.loads(text) if text else None
