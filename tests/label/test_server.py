"""Who may ask the server, and for what."""

import http.client
import io
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from label_files import GREY, RED, open_session, running, write_images
from PIL import Image

from torch_svm_seg.label.server import LARGEST_BODY, LabelServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LabelServer]:
    write_images(tmp_path / "images")
    (tmp_path / "secret.txt").write_text("secret")
    with running(open_session(tmp_path)) as server:
        yield server


def ask(server: LabelServer, path: str, body: Any = None, method: str = "", **headers: str) -> tuple[int, bytes, Any]:
    """Send a request as the page does, but for the headers that are given; an empty one is left out."""
    host = server.hosts[0]
    sent = {"Host": host, "Origin": f"http://{host}", "Content-Type": "application/json"} if body is not None else {}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    content = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.putrequest(method or ("GET" if body is None else "POST"), path, skip_host="Host" in sent)
    for name, value in sent.items():
        if value:
            connection.putheader(name, value)
    if content is not None and "Content_Length" not in headers:
        connection.putheader("Content-Length", str(len(content)))
    connection.endheaders(content)
    answer = connection.getresponse()
    found = (answer.status, answer.read(), answer.headers)
    connection.close()
    return found


def test_the_page_and_its_files_are_served(server: LabelServer) -> None:
    for name, kind in (("", "text/html"), ("page.css", "text/css"), ("page.js", "text/javascript")):
        status, content, headers = ask(server, f"/{server.token}/{name}")
        assert status == 200
        assert headers["Content-Type"].startswith(kind)
        assert content
    status, content, _ = ask(server, f"/{server.token}/images")
    assert json.loads(content)["images"][0] == {"id": "image0", "labelled": False}


def test_images_come_with_their_pixels(server: LabelServer) -> None:
    status, content, headers = ask(server, f"/{server.token}/image/2")
    assert (status, headers["Content-Type"]) == (200, "image/png")
    pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(content)))).permute(2, 0, 1)
    assert torch.equal(pixels, server.session.dataset.image(2))


def test_strokes_are_kept_and_undone(server: LabelServer) -> None:
    for entry in (RED, GREY):
        status, content, _ = ask(server, f"/{server.token}/add/0", entry)
        assert status == 200
    state = json.loads(content)
    assert state["size"] == [64, 48]
    assert [stroke["key"] for stroke in state["strokes"]] == ["red", "grey"]
    assert state["mask"].startswith("data:image/png;base64,")
    status, content, _ = ask(server, f"/{server.token}/undo/0", "grey")
    assert json.loads(content)["strokes"] == state["strokes"][:1]
    assert ask(server, f"/{server.token}/suggest/0", False)[1] == b"1"


@pytest.mark.parametrize(
    "path",
    ["/", "/images", "/wrong/images", "/{token}x/images", "/{token}/../images", "/{token}/image/../../secret.txt",
     "/{token}/page/page.js", "/{token}/%2e%2e/secret.txt", "/{token}//etc/passwd", "/{token}/image/-1",
     "/{token}/image/1x", "/{token}/labels/points.json", "/{token}/image/" + "9" * 40],
)  # fmt: skip
def test_nothing_else_is_served(server: LabelServer, path: str) -> None:
    status, content, _ = ask(server, path.format(token=server.token))
    assert status == 404
    assert b"secret" not in content
    assert server.token.encode() not in content


def test_images_that_are_not_there_are_named(server: LabelServer) -> None:
    status, content, _ = ask(server, f"/{server.token}/state/7")
    assert (status, json.loads(content)) == (422, {"error": "image 7: there are 3"})


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "[::1]:{port}"])
def test_foreign_hosts_are_refused(server: LabelServer, host: str) -> None:
    # A page whose domain was made to resolve to this machine has its own name in Host.
    assert ask(server, f"/{server.token}/images", Host=host.format(port=server.server_port))[0] == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://{host}", "http://127.0.0.1"])
def test_foreign_origins_are_refused(server: LabelServer, origin: str) -> None:
    origin = origin.format(host=server.hosts[0])
    assert ask(server, f"/{server.token}/images", Origin=origin)[0] == 403
    assert ask(server, f"/{server.token}/add/0", RED, Origin=origin)[0] == 403
    assert server.session.open(0).strokes == ()


def test_changes_need_an_origin_and_json(server: LabelServer) -> None:
    # What a form of another page can send without asking first.
    assert ask(server, f"/{server.token}/add/0", RED, Origin="")[0] == 403
    assert ask(server, f"/{server.token}/add/0", RED, Content_Type="text/plain")[0] == 403
    assert (
        ask(
            server,
            f"/{server.token}/add/0",
            b"{",
        )[0]
        == 400
    )
    assert ask(server, f"/{server.token}/add/0", b"[" * 100_000)[0] == 400
    assert ask(server, f"/{server.token}/add/0", method="GET")[0] == 404
    assert server.session.open(0).strokes == ()


@pytest.mark.parametrize("length", [str(LARGEST_BODY + 1), "-1", "many", "9" * 30])
def test_large_and_endless_requests_are_refused(server: LabelServer, length: str) -> None:
    assert ask(server, f"/{server.token}/add/0", b"", Content_Length=length)[0] == 413


def test_no_other_method_is_known(server: LabelServer) -> None:
    for method in ("PUT", "DELETE", "OPTIONS", "PATCH"):
        assert ask(server, f"/{server.token}/images", method=method)[0] == 501


def test_nothing_may_be_read_framed_or_cached_elsewhere(server: LabelServer) -> None:
    for path in ("", "images", "image/0", "nothing"):
        headers = ask(server, f"/{server.token}/{path}")[2]
        assert "Access-Control-Allow-Origin" not in headers
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"


def test_only_this_machine_can_connect(server: LabelServer) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_a_request_that_breaks_off_changes_nothing(server: LabelServer) -> None:
    content = json.dumps(RED).encode()
    for part in (b"", content[:20]):
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as connection:
            head = (
                f"POST /{server.token}/add/0 HTTP/1.1\r\nHost: {server.hosts[0]}\r\nOrigin: http://{server.hosts[0]}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
            )
            connection.sendall(head.encode() + part)
    assert json.loads(ask(server, f"/{server.token}/state/0")[1])["strokes"] == []


def test_every_start_has_its_own_token(server: LabelServer, tmp_path: Path) -> None:
    with running(server.session) as other:
        assert len(other.token) >= 32
        assert other.token != server.token
        assert ask(other, f"/{server.token}/images")[0] == 404
