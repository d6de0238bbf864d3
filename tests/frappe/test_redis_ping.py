"""The look at a Redis server, before anything is coordinated, says why it cannot be used."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from frappe_bootstrap.waiting import ping_redis
from tests.frappe.test_servers import HOST, program, serving
from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PASSWORD = "canary@:/ 1"
QUOTED = "canary%40%3A%2F%201"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a server with a password, a user and two databases."""
    folder: Path = tmp_path_factory.mktemp("redis")
    port = free_port()
    command = [program("redis-server"), "--port", str(port), "--bind", HOST, "--save", "", "--dir", str(folder)]
    command += ["--requirepass", PASSWORD, "--databases", "2", "--user", "boot", "on", "+@all", "~*", f">{QUOTED}"]
    with serving(command, "Ready to accept connections"):
        yield f"{HOST}:{port}"


@pytest.mark.parametrize("credentials", [f":{QUOTED}", f"default:{QUOTED}", f"boot:{QUOTED.replace('%', '%25')}"])
@pytest.mark.parametrize("rest", ["", "/", "/1", "/1?socket_keepalive=yes"])
def test_a_good_login_is_enough(server: str, credentials: str, rest: str) -> None:
    """With and without a user and a database; what the plain socket does not know, the client does."""
    assert ping_redis(f"redis://{credentials}@{server}{rest}") is None


@pytest.mark.parametrize("option", ["", "?socket_keepalive=yes"])
@pytest.mark.parametrize(
    ("credentials", "path", "words"),
    [
        ("", "", "Authentication required"),
        (":wrong@", "", "invalid username-password pair"),
        ("nobody:wrong@", "", "invalid username-password pair"),
        (f":{QUOTED}@", "/7", "DB index is out of range"),
    ],
)
def test_a_refusal_is_told_in_the_servers_words(
    server: str, credentials: str, path: str, words: str, option: str
) -> None:
    """With the address, and without the password."""
    reason = ping_redis(f"redis://{credentials}{server}{path}{option}")
    assert reason is not None
    assert reason.startswith(f"{server}: ")
    assert words in reason
    assert "wrong" not in reason.replace("WRONGPASS", "")
    assert "canary" not in reason


def test_the_look_loads_no_client_library(server: str) -> None:
    """A boot whose leases are elsewhere does not pay for it."""
    code = (
        "import sys; from frappe_bootstrap.waiting import ping_redis; "
        f"assert ping_redis('redis://:{QUOTED}@{server}/1') is None; assert 'redis' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
