"""The whole bridge on a real cluster with TLS, between real servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.certificates import Pair as Certificate
from tests.cluster import Cluster
from tests.dicom_samples import small_series
from tests.integration.conftest import Pair

pytestmark = pytest.mark.orthanc


def certified(authority: Authority, pair: Certificate, address: str) -> dict[str, str]:
    return {
        "EXECUTOR": address,
        "DASK_TLS_CA_FILE": authority.certificate,
        "DASK_TLS_CERT_FILE": pair.certificate,
        "DASK_TLS_KEY_FILE": pair.key,
    }


def test_everything_arrives_over_tls_and_an_unknown_client_is_kept_out(
    pair: Pair, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    authority, unknown = Authority(keys), Authority(keys, "unknown")
    for made in (authority, unknown):
        made.create()
    member, foreign = authority.issue("member"), unknown.issue("foreign")
    tls = {"ca-file": authority.certificate, "cert": member.certificate, "key": member.key}
    sent = {pair.send(data) for data in small_series(6)}
    with Cluster(tmp_path, tls=tls) as cluster:
        settings = certified(authority, member, cluster.address)
        alone = pair.run("run", "--once", COMMAND_PATIENCE_S="1", **settings)
        assert alone.exit_code == 2
        assert "The scheduler has no worker" in alone.stderr
        assert pair.held() == set()
        outside = certified(authority, foreign, cluster.address)
        kept_out = pair.run("run", "--once", COMMAND_PATIENCE_S="1", **outside)
        assert kept_out.exit_code == 2
        assert "cannot be used" in kept_out.stderr
        cluster.start_worker(threads=2)
        done = pair.run("run", "--once", "--json", **settings)
        assert done.exit_code == 0, done.stderr
        assert done.json["delivered"] == 6
        assert pair.held() == sent
        again = pair.run("replay", "--from", "1", "--json", **settings)
        assert again.exit_code == 0, again.stderr
        assert again.json["already_there"] == 6
