"""The SPIFFE Workload Endpoint standard, sections 3 and 4: how a program finds the socket, and which addresses are none."""

import pytest

from crank.bootstrap.fetch_identity import socket_path
from crank.config import endpoint_socket
from crank.errors import ConfigurationError


@pytest.mark.must("Workload Endpoint 4/2", "Workload Endpoint 4/4")
@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("unix:///run/spiffe.sock", "/run/spiffe.sock"),
        ("unix:/run/spiffe.sock", "/run/spiffe.sock"),
        ("unix:///run/a%20b.sock", "/run/a b.sock"),
        ("UNIX:///run/spiffe.sock", "/run/spiffe.sock"),
    ],
)
def test_what_is_the_address_of_a_socket(address, path):
    """Workload Endpoint 4: scheme unix (RFC 3986 3.1: in any letters), no authority, an absolute path."""
    assert socket_path(address) == path


@pytest.mark.must("Workload Endpoint 3/2", "Workload Endpoint 4/2", "Workload Endpoint 4/3", "Workload Endpoint 4/4")
@pytest.mark.parametrize(
    "address",
    [
        "",
        "/run/spiffe.sock",
        "run/spiffe.sock",
        "unix:",
        "unix://",
        "unix:run/spiffe.sock",
        "unix://run/spiffe.sock",
        "unix://host/run/spiffe.sock",
        "unix://me@/run/spiffe.sock",
        "unix:///run/spiffe.sock?a",
        "unix:///run/spiffe.sock#a",
        "unix:///run/a%00b.sock",
        "unix://[",
        "unixs:///run/spiffe.sock",
        "file:///run/spiffe.sock",
        "http://127.0.0.1:80",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:8000",
        "tcp://host.test:8000",
    ],
)
def test_what_is_no_address_of_a_socket(address):
    """Workload Endpoint 3, 4: no authority, user, query or fragment; and TCP, where no kernel names the caller, is not spoken."""
    with pytest.raises(ConfigurationError) as caught:
        socket_path(address)
    assert caught.value.error_code == "invalid_endpoint_socket"


@pytest.mark.must("Workload Endpoint 4/1")
def test_a_program_finds_it_by_the_variable_of_the_standard():
    """Workload Endpoint 4: SPIFFE_ENDPOINT_SOCKET names it; an empty one is as good as none."""
    assert endpoint_socket(environment={"SPIFFE_ENDPOINT_SOCKET": "unix:///a"}) == "unix:///a"
    assert endpoint_socket(environment={"SPIFFE_ENDPOINT_SOCKET": ""}) is None
    assert endpoint_socket(environment={}) is None
