"""URLs from hell: each is taken apart as meant, or refused with an error that names the part and shows no secret."""

from __future__ import annotations

import re
import traceback
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinate import _plugins
from coordinate.backend import StoreSettings
from coordinate.errors import ConfigError
from coordinate.url import Host, StoreUrl, parse

CANARY = "canary"
NAMES = st.from_regex(r"[a-z0-9]([a-z0-9_-]{0,20}[a-z0-9])?(\.[a-z0-9]{1,10}){0,3}", fullmatch=True)
ADDRESSES = st.ip_addresses().map(str)
PORTS = st.one_of(st.none(), st.integers(1, 65535))
HOSTS = st.lists(st.builds(Host, NAMES | ADDRESSES, PORTS), min_size=1, max_size=7).map(tuple)
VISIBLE = st.characters(exclude_categories=("Cs", "Cc"))
USERS = st.text(VISIBLE, min_size=1, max_size=20)
PASSWORDS = st.text(VISIBLE, max_size=30)
RAW = st.text(st.sampled_from("ab0:@/#[],;&=+ !$'()*~^|<>{}"), max_size=20)
"""Characters that need no percent sign: the last @ ends the credentials."""


@given(HOSTS, st.none() | USERS, st.none() | PASSWORDS, st.integers(0, 15))
def test_what_is_put_together_comes_apart_again(
    hosts: tuple[Host, ...], user: str | None, password: str | None, database: int
) -> None:
    """Any number of hosts, IPv6 among them, and any user and password, percent-encoded."""
    credentials = quote(user or "", safe="")
    if password is not None:
        credentials += ":" + quote(password, safe="")
    at = "@" if user or password is not None else ""
    url = parse(f"redis+cluster://{credentials}{at}{','.join(map(str, hosts))}/{database}?timeout=1")
    assert (url.hosts, url.username, url.password) == (hosts, user, password)
    assert (url.path, url.options) == (f"/{database}", {"timeout": "1"})
    assert ":***@" in str(url) or password is None


@given(HOSTS, RAW)
def test_passwords_need_no_encoding_but_for_two_characters(hosts: tuple[Host, ...], password: str) -> None:
    """Only % and ? have a meaning before the last @."""
    url = parse(f"redis://user:{password}@{','.join(map(str, hosts))}/0")
    assert (url.hosts, url.username, url.password) == (hosts, "user", password)


@given(st.text(max_size=60))
def test_any_text_is_a_url_or_a_config_error(text: str) -> None:
    """Never another exception, however odd the text."""
    for candidate in (text, f"redis://{text}", f"redis+sentinel://h,{text}", f"sentinel://{text};sentinel://{text}"):
        try:
            url = parse(candidate)
        except ConfigError:
            continue
        assert isinstance(url, StoreUrl)
        assert all(host.name and (host.port is None or 0 < host.port < 65536) for host in url.hosts)


@given(st.text(st.sampled_from(":@/?#[]%,;&=\\ \n\t\0a1"), max_size=12), st.sampled_from(["", "user", "u:x"]))
def test_no_error_shows_what_may_be_a_password(noise: str, user: str) -> None:
    """Wherever a slip of the pen has put it, as long as it stands where credentials may stand."""
    shown = ""
    try:
        parse(f"redis://{user}:{CANARY}{noise}")
    except ConfigError as error:
        shown = "".join(traceback.format_exception(error))
    assert CANARY not in shown


def refused(text: str) -> str:
    """Return what is said about a URL when its store is opened; nothing is connected to."""
    with pytest.raises(ConfigError) as error:
        url = parse(text)
        _plugins.backend_class(url.scheme).open(url, StoreSettings())
    shown = "".join(traceback.format_exception(error.value))
    assert CANARY not in shown, shown
    return str(error.value)


SCHEMES = ["", " ", "redis", "redis:", "redis:/h", "redis:h:6379", "://h", "re dis://h", "h:6379", "redis;//h",
           "user:canary@h:6379", "user:canary@redis://h", "//h:6379/0", "https//h", "\0://h"]  # fmt: skip
FOREIGN = ["amqp://u:canary@h", "http://:canary@h/", "redis+foo://:canary@h", "rediss+foo://h", "unix+x:///run/s",
           "memory+x://"]  # fmt: skip
HOST = ["redis://h,,i", "redis://,h", "redis://h,", "redis://h,/0", "redis://,", "redis://:6379/0", "redis://@",
        "redis://u:canary@", "redis://u:canary@/0", "redis:///:canary@h/0", "redis://::1", "redis://::1:6379",
        "redis://[::1", "redis://::1]", "redis://[::1]]", "redis://[]", "redis://[h]:1", "redis://[::1]x:1",
        "redis://[127.0.0.1]:1", "redis://[::zz]", "redis://[1:2:3]", "redis://h:1:2", "redis://a b", "redis://a%20b",
        "redis://a%00b", "redis://a%0ab", "redis://a%2Fb", "redis://a%40b", "redis://a\\b", "redis://h#0",
        f"redis://{'x' * 300}", "redis://u:canary:h:1"]  # fmt: skip
PORT = ["redis://h:", "redis://h:/0", "redis://h:0", "redis://h:-1", "redis://h:+1", "redis://h:65536", "redis://h:x",
        "redis://h:1e3", "redis://h:6379a", "redis://h:٣", "redis://h:²", "redis://h: 1", f"redis://h:{'9' * 5000}",
        "redis://[::1]:", "redis://[::1]:x", "redis://g:1,h:x", "redis://user:canary", "redis://user:canary/0",
        "redis://user:can?canary@h"]  # fmt: skip
CONTROL = ["redis://h\n/0", "redis://h/0\r\nX", "redis://u:canary\0@h", "redis://h\x1b[31m", "redis://\udcffh",
           "redis://u:canary\udcff@h", "redis://h/\t0", "redis://h/%00", "unix:///run/%00",
           "unix:///a\x7fb"]  # fmt: skip
DATABASE = ["redis://h/x", "redis://h/-1", "redis://h/1.5", "redis://h/0/1", "redis://h/0#1", "redis://h/٣",
            "redis://h/ 1", f"redis://h/{'9' * 5000}", "unix:///s?db=x", "unix:///s?db=-1",
            "unix:///s?db=1e3"]  # fmt: skip
TWICE = ["redis://h?timeout=1&timeout=2", "redis://h?db=1&db=1", "redis://h?=x", "redis://h?timeout=1&=",
         "redis://u:1?canary@h", "redis://h?&&timeout=1&timeout=1"]  # fmt: skip
UNKNOWN = ["redis://h?retries=3", "redis://h?db=1", "redis://h?Timeout=1", "redis://h?password=canary",
           "redis://h?pw=canary", "redis://:canary@h?decode_responses=1", "redis://h?ssl_ca_certs=/x",
           "redis://h?ssl_cert_reqs=none", "redis://h?socket_timeout=1", "unix:///s?x=canary",
           "unix:///s?ssl_ca_certs=/x", "redis://h?a%3Db=c", "rediss://h?ssl_cert_reqs=none",
           "rediss://h?ssl_check_hostname=true&verify=canary", "memory://?x=1"]  # fmt: skip
VALUE = ["redis://h?timeout", "redis://h?timeout=0", "redis://h?timeout=-1", "redis://h?timeout=nan", "redis://h?timeout=inf",
         "redis://h?timeout=1s", "redis://h?timeout=", "redis://h?timeout=1e9", "redis://h?quarantine=yes",
         "redis://h?quarantine=", "redis://h?quarantine=AUTO", "redis://h?durability=two", "redis://h?durability=",
         "redis://h?client_name=two%20words", "redis://h?client_name=", "redis://h?client_name=%C3%A4",
         f"redis://h?client_name={'x' * 65}", "redis://h?client_name=a%0ab", "redis://h?credential_provider=x",
         "redis://:canary@h?credential_provider=a:b", "rediss://h?ssl_check_hostname=no", "rediss://h?ssl_ca_certs=",
         "rediss://h?ssl_ca_certs=/no/such", "rediss://h?ssl_certfile=/etc/hostname",
         "rediss://h?ssl_keyfile=/etc/hostname&ssl_password=canary",
         "rediss://h?ssl_ca_certs=/etc/passwd&ssl_password=canary"]  # fmt: skip
WHERE = ["redis://a,b/0", "redis://a:1,a:1", "unix://", "unix:///", "unix://h/s", "unix://run/redis.sock",
         "rediss://a,b"]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "part"),
    [
        *((text, "has no scheme") for text in SCHEMES),
        *((text, "not a store|needs a plugin|answers to") for text in FOREIGN),
        *((text, "host|socket's path") for text in HOST),
        *((text, "port|database") for text in PORT),
        *((text, "control character|UTF-8|no scheme") for text in CONTROL),
        *((text, "number of a database") for text in DATABASE),
        *((text, "given twice|no name|name of an option") for text in TWICE),
        *((text, "unknown option .*; known options: ") for text in UNKNOWN),
        *((text, "timeout|quarantine|durability|client_name|credential_provider|ssl_") for text in VALUE),
        *((text, "one host|absolute") for text in WHERE),
    ],
)
def test_each_hostile_url_is_refused_by_name_of_the_wrong_part(text: str, part: str) -> None:
    """Before anything is tried, as a typed error, with the password nowhere in it."""
    said = refused(text)
    assert re.search(part, said), said


def test_there_are_enough_of_them() -> None:
    """The issue asks for a hundred."""
    groups = (SCHEMES, FOREIGN, HOST, PORT, CONTROL, DATABASE, TWICE, UNKNOWN, VALUE, WHERE)
    assert sum(map(len, groups)) >= 100


@pytest.mark.parametrize(
    "text",
    [
        "redis://canary@h/0",
        "redis://:canary@h/0?timeout=1",
        "redis://u:canary@h,i/0",
        "redis://h?sentinel_password=canary&pwd=canary&auth_token=canary",
        "redis://u:a@canary@h",
    ],
)
def test_no_form_of_a_good_url_shows_its_secret(text: str) -> None:
    """Nor a user name that stands alone: it may be a password whose colon was forgotten."""
    url = parse(text)
    assert CANARY not in f"{url} {url!r} {[url]}"
