"""TLS through the whole bridge: its own process and its workers, both servers, a private CA.

The servers are fakes: Orthanc as Debian builds it dies at the first TLS handshake
(docs/orthanc.md), so in practice a reverse proxy terminates TLS, and the bridge sees no more of
Orthanc than it does here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bridge_process import wait_until
from tests.certificates import Authority, Pair, server_context
from tests.dicom_samples import small_series
from tests.fake_orthanc import FakeOrthanc
from tests.fake_pair import FakePair


@dataclass(frozen=True)
class Trust:
    """Who signed what, for all tests of this file."""

    authority: Authority
    unknown: Authority
    server: Pair
    elsewhere: Pair
    expired: Pair
    client: Pair
    unknown_client: Pair

    def settings(self, side: str) -> dict[str, str]:
        return {
            f"{side}_CA_FILE": self.authority.certificate,
            f"{side}_CLIENT_CERT_FILE": self.client.certificate,
            f"{side}_CLIENT_KEY_FILE": self.client.key,
        }


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    unknown = Authority(tmp_path_factory.mktemp("unknown"), "unknown")
    for made in (authority, unknown):
        made.create()
    return Trust(
        authority,
        unknown,
        server=authority.issue("server"),
        elsewhere=authority.issue("elsewhere", alternative="DNS:pacs.example"),
        expired=authority.issue("expired", days=0),
        client=authority.issue("client", alternative="DNS:bridge"),
        unknown_client=unknown.issue("client", alternative="DNS:bridge"),
    )


@pytest.fixture
def between(tmp_path: Path) -> Iterator[Callable[..., FakePair]]:
    made: list[FakePair] = []

    def make(source: FakeOrthanc, target: FakeOrthanc, **settings: str) -> FakePair:
        made.append(FakePair(source.url, target.url, tmp_path / "home", **settings))
        return made[-1]

    yield make
    for pair in made:
        pair.close()


def test_both_servers_with_a_private_authority_and_client_certificates(
    trust: Trust, between: Callable[..., FakePair]
) -> None:
    context = server_context(trust.server, clients_of=trust.authority)
    with FakeOrthanc(tls=context) as source, FakeOrthanc(tls=context) as target:
        sent = {source.put(data): data for data in small_series(6)}
        pair = between(source, target, **trust.settings("SOURCE"), **trust.settings("TARGET"))
        done = pair.run("run", "--once", "--json", LOG_LEVEL="debug")
        assert done.exit_code == 0, done.stderr
        assert {i: target.store.instances[i].data for i in sent} == sent
        assert trust.client.key not in done.stderr, "the path of a key is nobody's business"


REFUSALS = {
    "host name": ("elsewhere", {}, "another host name", "BRIDGE_{side}_URL"),
    "expired": ("expired", {}, "expired", "certificate"),
    "wrong authority": ("server", {"CA_FILE": "unknown"}, "no trusted authority", "_CA_FILE"),
    "no authority": ("server", {"CA_FILE": ""}, "no trusted authority", "BRIDGE_{side}_CA_FILE"),
    "no client certificate": (
        "server",
        {"CLIENT_CERT_FILE": "", "CLIENT_KEY_FILE": ""},
        "refused the bridge's client certificate, or requires one",
        "BRIDGE_{side}_CLIENT_CERT_FILE",
    ),
    "wrong client certificate": (
        "server",
        {"CLIENT_CERT_FILE": "strange", "CLIENT_KEY_FILE": "strange"},
        "refused the bridge's client certificate, or requires one",
        "BRIDGE_{side}_CLIENT_CERT_FILE",
    ),
}


@pytest.mark.parametrize(
    ("side", "why"),
    [("SOURCE", why) for why in REFUSALS] + [("TARGET", "host name"), ("TARGET", "no authority")],
)
def test_what_is_not_to_be_trusted_is_not(
    trust: Trust, between: Callable[..., FakePair], side: str, why: str
) -> None:
    shown, changes, seen, named = REFUSALS[why]
    values = {
        "unknown": trust.unknown.certificate,
        "strange": trust.unknown_client.certificate,
        "": "",
    }
    changed = {f"{side}_{name}": values[value] for name, value in changes.items()}
    if why == "wrong client certificate":
        changed[f"{side}_CLIENT_KEY_FILE"] = trust.unknown_client.key
    context = server_context(getattr(trust, shown), clients_of=trust.authority)
    with FakeOrthanc(tls=context) as guarded, FakeOrthanc() as plain:
        guarded.put(small_series(1)[0])
        servers = (guarded, plain) if side == "SOURCE" else (plain, guarded)
        pair = between(*servers, **trust.settings(side) | changed)
        login = {f"{side}_USERNAME": "u", f"{side}_PASSWORD": "hush"}
        done = pair.run("run", "--once", **login)
        assert done.exit_code == (10 if side == "SOURCE" else 11), done.stderr
        assert seen in done.stderr
        assert named.format(side=side) in done.stderr
        assert guarded.requests == [], "nothing is sent, no password above all"


def test_a_certificate_that_is_renewed_is_waited_for(
    trust: Trust, between: Callable[..., FakePair]
) -> None:
    with FakeOrthanc() as source, FakeOrthanc(tls=server_context(trust.expired)) as target:
        sent = source.put(small_series(1)[0])
        pair = between(source, target, TARGET_CA_FILE=trust.authority.certificate)
        bridge = pair.start("run")
        health = bridge.wait_health(
            lambda said: said["target"]["problem"] == "tls", "the target's trouble"
        )
        assert "expired" in health["target"]["message"]
        target.stop()
        target.tls = server_context(trust.server)
        target.start()
        wait_until(lambda: sent in target.store.instances, "the instance arrives")
        assert pair.parked() == {}


@pytest.mark.parametrize("side", ["SOURCE", "TARGET"])
def test_what_we_trust_and_show_may_be_renewed_meanwhile(
    trust: Trust, between: Callable[..., FakePair], tmp_path: Path, side: str
) -> None:
    """The server changes authority; our files are away for a while, then they are the new ones."""
    server = trust.unknown.issue(f"server-{side}")
    ours = {name: tmp_path / f"{name}.pem" for name in ("CA", "CLIENT_CERT", "CLIENT_KEY")}

    def renew(authority: Authority, shown: Pair) -> None:
        contents = (authority.certificate, shown.certificate, shown.key)
        for file, content in zip(ours.values(), contents, strict=True):
            file.write_text(Path(content).read_text())

    renew(trust.authority, trust.client)
    old = server_context(trust.server, clients_of=trust.authority)
    with FakeOrthanc(tls=old) as guarded, FakeOrthanc() as plain:
        source, target = (guarded, plain) if side == "SOURCE" else (plain, guarded)
        sent = [source.put(data) for data in small_series(4)[:2]]
        files = {f"{side}_{name}_FILE": str(file) for name, file in ours.items()}
        pair = between(source, target, WORKERS="1", **files)
        bridge = pair.start("run")
        wait_until(lambda: set(sent) <= set(target.store.instances), "the first two arrive")
        guarded.stop()
        for file in ours.values():
            file.unlink()
        guarded.tls = server_context(server, clients_of=trust.unknown)
        guarded.start()
        sent += [source.put(data) for data in small_series(4)[2:]]
        named = f"BRIDGE_{side}_CA_FILE names cannot be read"
        bridge.wait_health(
            lambda said: named in str(said[side.lower()]["message"]), "the file that is not there"
        )
        renew(trust.unknown, trust.unknown_client)
        wait_until(lambda: set(sent) <= set(target.store.instances), "the others arrive")
        assert pair.parked() == {}
        spent = [line["attempts"] for line in bridge.logged("instance_retried")]
        assert set(spent) <= {0}, "no instance is blamed"


@pytest.mark.parametrize("command", ["run --once", "replay --from 1", "check", "plan"])
def test_a_certificate_that_cannot_be_read_at_the_start_is_a_mistake(
    trust: Trust, between: Callable[..., FakePair], tmp_path: Path, command: str
) -> None:
    text = tmp_path / "text.pem"
    text.write_text("not a certificate")
    with FakeOrthanc(tls=server_context(trust.server)) as source, FakeOrthanc() as target:
        done = between(source, target, SOURCE_CA_FILE=str(text)).run(*command.split())
        assert done.exit_code == 2
        assert "BRIDGE_SOURCE_CA_FILE" in done.stderr
