"""The server of the labelling page: on this machine alone, for whoever knows the address.

Any page in the same browser, and any program of another user, can send requests to a port of this machine. So

- the server listens on 127.0.0.1 only;
- a request must name that host: a foreign domain that resolves to 127.0.0.1 is refused;
- every address begins with a random token, and no answer may be read or framed by another origin;
- a change must come from the page's own origin, as JSON.

It serves the page's own files and images by their number: no path of a request is ever a path of the disk. It is the
standard library's server, which needs nothing installed; what that server lacks, such as speed and TLS, a page for one
person on one machine does not need.
"""

import hmac
import json
import secrets
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

from torch_svm_seg.data.channels import as_colours
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.label.pictures import class_colours, image_png, mask_png, uncertainty_png
from torch_svm_seg.label.session import Session, State

HOST = "127.0.0.1"
LARGEST_BODY = 2**20
"""Most bytes of a request: a stroke of 5,000 corners has 200 kB."""

PATIENCE = 30
"""Seconds after which a request that does not go on is given up."""

_PAGE = {
    "": ("page.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class LabelServer(ThreadingHTTPServer):
    """Serves a session.

    Args:
        session: The session.
        port: To listen on; 0 for any that is free.

    Raises:
        OSError: The port is taken.

    Examples:
        >>> LabelServer(session).serve_forever()  # doctest: +SKIP
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, session: Session, port: int = 0) -> None:
        super().__init__((HOST, port), _Handler)
        self.session, self.token = session, secrets.token_urlsafe(24)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names of this host that a request may use."""
        return (f"{HOST}:{self.server_port}", f"localhost:{self.server_port}")

    @property
    def address(self) -> str:
        """The address to open."""
        return f"http://{self.hosts[0]}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet about a browser that went away; what the session raises is answered by the handler."""


class _Refused(Exception):
    """A request that is not answered as asked, with the status that says why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: LabelServer
    timeout = PATIENCE
    server_version, sys_version = "torch-svm-seg", ""

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Write no log: addresses hold the token."""

    def _answer(self, respond: Callable[[list[str]], tuple[str, bytes]]) -> None:
        try:
            kind, content = respond(self._path())
            status = 200
        except (_Refused, InputError, OSError) as error:
            if isinstance(error, (ConnectionError, TimeoutError)):
                raise
            status = error.status if isinstance(error, _Refused) else 422 if isinstance(error, InputError) else 500
            kind, content = "application/json", _json({"error": str(error)})
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8" if kind.startswith("text/") else kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _path(self) -> list[str]:
        """Return the parts of the path after the token, if the request may be answered at all."""
        if self.headers.get_all("Host") not in [[host] for host in self.server.hosts]:
            raise _Refused(403, "unknown host")
        origin = self.headers.get("Origin")
        if origin is not None and origin not in [f"http://{host}" for host in self.server.hosts]:
            raise _Refused(403, "foreign origin")
        first, *rest = self.path.partition("?")[0].removeprefix("/").split("/")
        if not hmac.compare_digest(first.encode(), self.server.token.encode()):
            raise _Refused(404, "no such page")
        return rest

    def _get(self, path: list[str]) -> tuple[str, bytes]:
        session = self.server.session
        if len(path) == 1 and path[0] in _PAGE:
            name, kind = _PAGE[path[0]]
            return kind, files("torch_svm_seg.label").joinpath("page", name).read_bytes()
        if path == ["images"]:
            return "application/json", _json({"images": session.overview(), "classes": _classes(session)})
        if len(path) == 2 and path[0] == "image":
            return "image/png", image_png(as_colours(session.image(_number(path[1]))))
        if len(path) == 2 and path[0] == "state":
            return "application/json", _state(session.open(_number(path[1])))
        raise _Refused(404, "no such page")

    def _post(self, path: list[str]) -> tuple[str, bytes]:
        body, session = self._body(), self.server.session
        if len(path) == 2 and path[0] == "add":
            return "application/json", _state(session.add(_number(path[1]), body))
        if len(path) == 2 and path[0] == "undo":
            return "application/json", _state(session.undo(_number(path[1]), body))
        if len(path) == 2 and path[0] == "suggest":
            return "application/json", _json(session.suggest(_number(path[1])))
        raise _Refused(404, "no such page")

    def _body(self) -> Any:
        """Return the body of a change: whole, JSON, and from the page's own origin."""
        if self.headers.get("Origin") is None or self.headers.get_content_type() != "application/json":
            raise _Refused(403, "a change must come from the page, as JSON")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or len(length) > 9 or int(length) > LARGEST_BODY:
            raise _Refused(413, f"expected a body of at most {LARGEST_BODY} bytes")
        content = self.rfile.read(int(length))
        if len(content) < int(length):
            raise ConnectionAbortedError("the browser went away")
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise _Refused(400, "expected JSON") from error


def _classes(session: Session) -> list[dict[str, str]]:
    names = session.annotations.class_names
    return [{"name": name, "colour": colour} for name, colour in zip(names, class_colours(len(names)), strict=True)]


def _number(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise _Refused(404, "no such page")
    return int(text)


def _json(content: Any) -> bytes:
    return json.dumps(content).encode()


def _state(state: State) -> bytes:
    """Return what the page shows of an image."""
    found = state.labelled
    return _json(
        {
            "size": [state.size[1], state.size[0]],
            "strokes": [stroke.as_json() for stroke in state.strokes],
            "mask": found and mask_png(found.mask),
            "uncertainty": found and uncertainty_png(found.margin),
        }
    )
