from __future__ import annotations

import socket

import pytest

from crboost.errors import CrboostError, ParameterError
from crboost.service.address import listen, tunnel_line, url_of, with_address
from crboost.settings import ServiceSettings


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:4200"),
        ("0.0.0.0", "http://127.0.0.1:4200"),
        ("::1", "http://[::1]:4200"),
        ("10.0.0.7", "http://10.0.0.7:4200"),
    ],
)
def test_the_url_is_one_that_this_machine_can_use(host: str, url: str) -> None:
    assert url_of(host, 4200) == url


def test_the_tunnel_ends_where_the_server_listens() -> None:
    assert tunnel_line("0.0.0.0", 4201, "node").startswith("ssh -L 4201:127.0.0.1:4201 ")
    assert tunnel_line("10.0.0.7", 4201, "node").startswith("ssh -L 4201:10.0.0.7:4201 ")
    assert tunnel_line("127.0.0.1", 4201, "node").endswith("@node")


def test_an_address_of_the_command_line_goes_before_the_settings() -> None:
    service = ServiceSettings(port=5000, runs_at_once=3)
    changed = with_address(service, None, 5001)
    assert (changed.host, changed.port, changed.runs_at_once) == ("127.0.0.1", 5001, 3)
    assert with_address(service, None, None) == service
    with pytest.raises(ParameterError, match="without a login"):
        with_address(ServiceSettings(auth=False), "0.0.0.0", None)


def test_a_port_in_use_is_named_with_the_way_out() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(CrboostError, match=f"port {port} of 127.0.0.1 is in use") as told:
            listen(ServiceSettings(port=port))
    assert "--port" in str(told.value) and "service.port in" in str(told.value)
    with listen(ServiceSettings(port=port)) as ours, socket.socket() as client:
        client.connect(ours.getsockname())  # who comes before the server waits


def test_an_address_of_another_machine() -> None:
    with pytest.raises(CrboostError, match=r"192\.0\.2\.1") as told:
        listen(ServiceSettings(host="192.0.2.1"))
    assert "service.host in" in str(told.value)
