"""Requests to the API of a Prefect server that tests share."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import httpx


def ask(
    method: str,
    url: str,
    login: str,
    body: Mapping[str, Any] | None = None,
    *,
    busy_seconds: float = 120,
    timeout: float = 30,
) -> httpx.Response:
    """One request; as every Prefect client does, asked again while SQLite is busy (503).

    Args:
        method, url, body: the request.
        login: the server's auth string, `user:secret`.
        busy_seconds: after this long, the answer may be a 503.
        timeout: seconds for each try.
    """
    user, _, secret = login.partition(":")
    deadline = time.monotonic() + busy_seconds
    while True:
        answer = httpx.request(method, url, json=body, auth=(user, secret), timeout=timeout)
        if answer.status_code != 503 or time.monotonic() > deadline:
            return answer
        time.sleep(0.5)
