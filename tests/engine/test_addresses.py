"""Where a configuration may point us, by who configured it."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv4Network
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from churnguard_pipelines.engine import addresses
from churnguard_pipelines.engine.addresses import AddressGuard, guard_of, is_ours, is_public
from churnguard_pipelines.errors import InvalidConfiguration, ProviderUnavailable
from churnguard_pipelines.settings import AllowedAddress, Settings, load_settings
from tests.conftest import configuration

INSIDE = [
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32",
]  # fmt: skip


def organizations(*allowed: str, look_up: addresses.LookUp = addresses.look_up) -> AddressGuard:
    return AddressGuard("acme", True, tuple(map(AllowedAddress.parse, allowed)), look_up)


def answering(*found: str) -> addresses.LookUp:
    return lambda host, port: list(found)


@pytest.mark.parametrize("network", INSIDE)
def test_no_address_of_a_special_network_is_public(network: str) -> None:
    first, last = IPv4Network(network)[0], IPv4Network(network)[-1]
    for address in (first, last):
        number = int(address)
        assert not is_public(str(address))
        disguised = [
            f"::ffff:{address}", f"::{address}", f"64:ff9b::{address}", f"64:ff9b:1::{address}", f"::ffff:0:{address}",
            f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1", f"2001:0:{number >> 16:x}:{number & 0xFFFF:x}::1",
            f"fe80::5efe:{address}",
        ]  # fmt: skip
        assert not [each for each in disguised if is_public(each)]


@pytest.mark.parametrize(
    "address",
    ["::", "::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%lo", "fec0::1", "ff02::1", "100::1", "2001:db8::1",
     "3fff::1", "2001:2::1", "2001:20::1", "5f00::1", "4000::1", "2606:4700::1111%eth0", "", "example.com", "1.2.3",
     "1.1.1.1 "],
)  # fmt: skip
def test_what_is_not_plainly_public_is_not(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "100.128.0.1", "172.32.0.1", "192.0.1.1", "2606:4700::1111", "64:ff9b::1.1.1.1"]
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


def spelled(draw: st.DrawFn) -> str:
    """An address inside as ``inet_aton`` reads it: one to four parts, each decimal, octal or hexadecimal."""
    network = IPv4Network(draw(st.sampled_from(INSIDE)))
    number = int(network[0]) + draw(st.integers(0, network.num_addresses - 1))
    parts = draw(st.integers(1, 4))
    values = [number >> (24 - 8 * place) & 0xFF for place in range(parts - 1)]
    values.append(number & (1 << (32 - 8 * (parts - 1))) - 1)
    written = [draw(st.sampled_from(["{}", "0{:o}", "0x{:x}", "0X{:X}", "0x{:08x}", "000{:o}"])) for _ in values]
    text = ".".join(how.format(value) for how, value in zip(written, values, strict=True))
    return draw(st.sampled_from([text, text, text.translate({48 + n: 0xFF10 + n for n in range(10)})]))


@given(st.composite(spelled)())
def test_no_spelling_of_an_address_inside_is_resolved(text: str) -> None:
    with pytest.raises(InvalidConfiguration, match="no host with a public address"):
        organizations().resolve(text, 443)


@given(st.integers(0, 2**32 - 1))
def test_whatever_the_c_library_makes_of_a_number_is_judged(number: int) -> None:
    guard, text = organizations(), str(number)
    try:
        found = guard.resolve(text, 443)
    except InvalidConfiguration:
        assert not is_public(str(IPv4Address(number))) or is_ours(str(IPv4Address(number)))
    else:
        assert found == [str(IPv4Address(number))]


@pytest.mark.parametrize(
    "host",
    ["", "/run/postgresql", "/proc/self/cwd/.churnguard/postgresql/socket", "@abstract", "1.1.1.1,127.0.0.1", ",", " ",
     "1.1.1.1 ", "a b", "1.1.1.1\n", "1.1.1.1\0.example.com", "1.1.1.1\t", "fe80::1%lo", "user@1.1.1.1", "1.1.1.1/",
     "[::1]", "1.1.1.1#", "1.1.1.1?", "..", ".", "a" * 300, "a..b", "é" * 70, "\ud800", "1.1.1.1:443", "::1:",
     "localhost", "LOCALHOST", "localhost.", "127.0.0.1.", "127。0。0。1", "①②⑦.0.0.1", "::ffff:127.0.0.1", "0"],
)  # fmt: skip
def test_what_is_no_public_host_is_refused_in_one_and_the_same_sentence(host: str) -> None:
    with pytest.raises(InvalidConfiguration) as raised:
        organizations().resolve(host, 443)
    assert raised.value.message.endswith("is no host with a public address.")
    assert raised.value.message.isprintable()
    assert raised.value.integration_id == "acme"


def test_a_name_inside_is_refused_as_one_that_does_not_exist() -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    said = []
    for look_up in (unknown, answering("10.0.0.5"), answering("1.1.1.1", "10.0.0.5"), answering()):
        with pytest.raises(InvalidConfiguration) as raised:
            organizations(look_up=look_up).resolve("db.corp.example", 5432)
        said.append(str(raised.value))
    assert len(set(said)) == 1
    assert "10.0.0.5" not in said[0]


def test_a_public_name_has_all_its_addresses_in_order() -> None:
    assert organizations(look_up=answering("2606:4700::1", "1.1.1.1")).resolve("example.com", 443) == [
        "2606:4700::1", "1.1.1.1",
    ]  # fmt: skip


def test_a_name_server_that_never_answers_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "LOOK_UP_SECONDS", 0.05)
    over = Event()

    def silent(host: str, port: int) -> list[str]:
        over.wait(60)
        return []

    try:
        with pytest.raises(ProviderUnavailable, match="no name server"):
            organizations(look_up=silent).resolve("example.com", 443)
    finally:
        over.set()


@pytest.mark.parametrize("port", [0, -1, 65536, 99999])
def test_a_port_that_is_none_is_a_matter_of_configuration(port: int) -> None:
    for guard in (organizations(), AddressGuard("acme", restricted=False)):
        with pytest.raises(InvalidConfiguration, match="no port"):
            guard.resolve("example.com", port)


def test_operators_may_name_hosts_inside_and_sockets() -> None:
    guard = AddressGuard("acme", restricted=False)
    assert guard.resolve("127.0.0.1", 5432) == ["127.0.0.1"]
    assert guard.resolve("/run/postgresql", 5432) == ["/run/postgresql"]
    assert "127.0.0.1" in guard.resolve("localhost", 5432)
    for host in ("", "a\0b", "no-such-host.invalid"):
        with pytest.raises(InvalidConfiguration, match="there is no host"):
            guard.resolve(host, 5432)


def test_this_machine_s_own_address_is_inside_whatever_it_looks_like(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_ours("127.0.0.1")
    assert not is_ours("192.0.2.1")
    monkeypatch.setattr(addresses, "is_ours", lambda address: address == "1.1.1.1")
    with pytest.raises(InvalidConfiguration):
        organizations().resolve("1.1.1.1", 5432)


@pytest.mark.parametrize(
    ("url", "refused"),
    [
        ("https://api.example.com/v1", None),
        ("wss://example.com", None),
        ("https://127.0.0.1/", "public address"),
        ("https://[::1]:8443/", "public address"),
        ("https://2130706433/", "public address"),
        ("http://api.example.com/v1", "without encryption"),
        ("ws://example.com", "without encryption"),
        ("redis://example.com:6379", "without encryption"),
        ("unix:///run/redis.sock", "public address"),
        ("file:///etc/passwd", "public address"),
        ("https://", "public address"),
        ("https://[::1", "public address"),
        ("https://example.com:99999/", "public address"),
    ],
)
def test_urls_of_organizations_are_encrypted_and_public(url: str, refused: str | None) -> None:
    if refused is None:
        return organizations().check_url(url)
    with pytest.raises(InvalidConfiguration, match=refused):
        organizations().check_url(url)
    return None


class TestWhatTheOperatorOpens:
    def test_a_network_or_a_host_with_a_port_or_without(self) -> None:
        guard = organizations("10.1.0.0/16:5432", "127.0.0.1", "localhost:8080", "[fd00::1]:443")
        assert guard.resolve("10.1.2.3", 5432) == ["10.1.2.3"]
        assert guard.resolve("127.0.0.1", 1) == ["127.0.0.1"]
        assert guard.resolve("0x7f000001", 1) == ["127.0.0.1"]
        assert guard.resolve("fd00::1", 443) == ["fd00::1"]
        guard.check_url("http://LOCALHOST:8080/")
        for host, port in (("10.1.2.3", 22), ("10.2.0.1", 5432), ("127.0.0.2", 1), ("fd00::1", 80), ("fd00::2", 443)):
            with pytest.raises(InvalidConfiguration):
                guard.resolve(host, port)

    def test_a_listed_name_has_whatever_addresses_it_has(self) -> None:
        guard = organizations("db.internal", look_up=answering("10.0.0.5"))
        assert guard.resolve("DB.internal.", 5432) == ["10.0.0.5"]
        with pytest.raises(InvalidConfiguration):
            guard.resolve("other.internal", 5432)

    def test_it_comes_from_the_environment_and_counts_for_organizations(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CHURNGUARD_TENANT_ADDRESSES", "127.0.0.1:9, db.internal ,")
        theirs = guard_of(configuration(configured_by="organization"))
        assert theirs.restricted
        assert theirs.resolve("127.0.0.1", 9) == ["127.0.0.1"]
        assert not guard_of(configuration()).restricted

    @pytest.mark.parametrize("value", ["10.0.0.1/8", "10.0.0.0/33", "a/b", "host:99999", "1.2.3", "a b", "::/129"])
    def test_an_invalid_value_stops_the_start_and_is_named(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        monkeypatch.setenv("CHURNGUARD_TENANT_ADDRESSES", value)
        with pytest.raises(InvalidConfiguration, match="CHURNGUARD_TENANT_ADDRESSES has"):
            load_settings()

    def test_nothing_is_open_by_default(self) -> None:
        assert Settings(_env_file=None).tenant_addresses == ()
