"""Downloads over an unreliable connection, on loopback."""

import warnings

import pytest

from tests.server import Server
from vit_jax import InputError
from vit_jax.download import download_file


@pytest.fixture
def server():
    server = Server({"/file": bytes(range(256)) * 400})
    yield server
    server.shutdown()
    server.server_close()


def fetch(server, path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        download_file(f"{server.address}/file", path, wait=lambda attempt: 0.0, timeout=0.3, **options)


@pytest.mark.parametrize(
    ("behaviour", "ranges"),
    [
        ([], [None]),
        (["truncate"], [None, "bytes=51200-"]),
        (["stall"], [None, "bytes=51200-"]),
        (["truncate", "ignore range"], [None, "bytes=51200-"]),
        ([503, 429], [None, None, None]),
        (["truncate", "truncate", 500], [None, "bytes=51200-", "bytes=76800-", "bytes=76800-"]),
    ],
)
def test_downloads_survive_an_unreliable_connection(server, tmp_path, behaviour, ranges, capsys):
    server.behaviour = behaviour
    fetch(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == server.files["/file"]
    assert server.ranges == ranges
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert capsys.readouterr().err == f"downloaded {tmp_path / 'f'}: 0.1 MB\n"
    fetch(server, tmp_path / "f")  # exists already: no request
    assert server.ranges == ranges


def test_failed_downloads_name_the_reason(server, tmp_path):
    server.behaviour = [404]
    with pytest.raises(InputError, match=r"/file: 404 Not Found; fetch it by hand into"):
        fetch(server, tmp_path / "f")
    server.behaviour = [503] * 3
    with pytest.raises(InputError, match="503 Service Unavailable, 3 times"):
        fetch(server, tmp_path / "f", tries=3)
    with pytest.raises(InputError, match="not the expected one"):
        fetch(server, tmp_path / "f", md5="0" * 32)
    assert not list(tmp_path.iterdir())
    (tmp_path / "f.partial").write_bytes(bytes(10**6))  # longer than the file, so not the beginning of it
    fetch(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == server.files["/file"]


def test_an_unreachable_server_is_named(tmp_path):
    with pytest.raises(InputError, match=r"127.0.0.1:9/x: .*refused"):
        download_file("http://127.0.0.1:9/x", tmp_path / "f", tries=2, wait=lambda attempt: 0.0)
