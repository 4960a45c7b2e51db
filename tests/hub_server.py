"""A small server on this machine that speaks the protocol of the Hugging Face hub, for models in one process."""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

TOKEN = "hf_that_may_write"
READER = "hf_that_may_read"


class Hub(http.server.ThreadingHTTPServer):
    """Repositories of models.

    Attributes:
        repositories: name -> branch, or commit -> the files with their content.
        private: names of repositories that need a token.
        requests: "METHOD path" of all requests, in order.
        broken: content that replaces every download of a file by this name, such as one damaged on its way.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.requests: list[str] = []
        self.broken: dict[str, bytes] = {}
        self.objects: dict[str, bytes] = {}
        self.names: dict[tuple[str, str], str] = {}

    @property
    def url(self) -> str:
        """The address for ``HF_ENDPOINT``."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def commit(self, repository: str, branch: str, files: dict[str, bytes]) -> str:
        """Add files to a branch, and return the commit."""
        files = {**self.repositories[repository].get(branch, {}), **files}
        text = repr((repository, sorted((name, hashlib.sha1(data).hexdigest()) for name, data in files.items())))
        commit = hashlib.sha1(text.encode()).hexdigest()
        self.repositories[repository][branch] = self.repositories[repository][commit] = files
        self.names[repository, branch] = commit
        return commit

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that leave before the answer."""


class _Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Hub

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0]
        self.server.requests.append(f"{self.command} {path}")
        patterns = {
            r"POST /api/repos/create": self.create,
            r"POST /api/validate-yaml": self.validate,
            r"POST /api/models/(.+)/branch/(.+)": self.branch,
            r"POST /api/models/(.+)/preupload/(.+)": self.preupload,
            r"POST /api/models/(.+)/commit/(.+)": self.commit,
            r"GET /api/models/(.+)/revision/(.+)": self.revision,
            r"POST /(.+)\.git/info/lfs/objects/batch": self.batch,
            r"PUT /upload/(.+)": self.upload,
            r"(?:GET|HEAD) /([^/]+/[^/]+)/resolve/([^/]+)/(.+)": self.resolve,
        }
        for pattern, answer in patterns.items():
            if match := re.fullmatch(pattern, f"{self.command} {path}"):
                if self.command in ("POST", "PUT") and "upload/" not in path and self.token != TOKEN:
                    return self.send(403 if self.token else 401, {"error": "You don't have the rights"})
                return answer(*match.groups(), body=body)
        return self.send(404, {"error": f"this server does not know {self.command} {path}"})

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    @property
    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def send(self, status: int, content: Any = None, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content or {}).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def create(self, *, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.server.repositories:
            return self.send(409, {"error": "You already created this model repo", "url": f"{self.server.url}/{name}"})
        self.server.repositories[name] = {}
        if asked.get("private") or asked.get("visibility") == "private":
            self.server.private.add(name)
        self.server.commit(name, "main", {".gitattributes": b"*.safetensors filter=lfs\n"})
        return self.send(200, {"url": f"{self.server.url}/{name}"})

    def validate(self, *, body: bytes) -> None:
        import yaml

        content = json.loads(body)["content"]
        metadata = yaml.safe_load(content.split("---\n")[1])
        known = metadata.get("pipeline_tag") == "video-classification"
        errors = [] if known else [{"message": "pipeline_tag is unknown"}]
        self.send(200 if known else 400, {"errors": errors, "warnings": []})

    def branch(self, repository: str, name: str, *, body: bytes) -> None:
        if name in self.server.repositories[repository]:
            return self.send(409, {"error": "Reference already exists"})
        self.server.commit(repository, name, self.server.repositories[repository]["main"])
        return self.send(200)

    def preupload(self, repository: str, revision: str, *, body: bytes) -> None:
        files = [
            {"path": file["path"], "shouldIgnore": False, "uploadMode": "lfs" if _is_large(file["path"]) else "regular"}
            for file in json.loads(body)["files"]
        ]
        self.send(200, {"files": files})

    def batch(self, repository: str, *, body: bytes) -> None:
        objects = [
            {**wanted, "actions": {"upload": {"href": f"{self.server.url}/upload/{wanted['oid']}"}}}
            for wanted in json.loads(body)["objects"]
        ]
        self.send(200, {"transfer": "basic", "objects": objects})

    def upload(self, oid: str, *, body: bytes) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.objects[oid] = body
        self.send(200)

    def commit(self, repository: str, revision: str, *, body: bytes) -> None:
        files = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
        commit = self.server.commit(repository, revision, files)
        url = f"{self.server.url}/{repository}/commit/{commit}"
        self.send(200, {"commitUrl": url, "commitOid": commit, "success": True})

    def revision(self, repository: str, revision: str, *, body: bytes) -> None:
        if self.may_read(repository, revision):
            files = self.server.repositories[repository][revision]
            commit = self.server.names.get((repository, revision), revision)
            siblings = [{"rfilename": name} for name in files]
            self.send(200, {"_id": "1", "id": repository, "modelId": repository, "sha": commit, "siblings": siblings})

    def resolve(self, repository: str, revision: str, name: str, *, body: bytes) -> None:
        if not self.may_read(repository, revision):
            return
        files = self.server.repositories[repository][revision]
        headers = {"X_Repo_Commit": self.server.names.get((repository, revision), revision)}
        if name not in files:
            self.send(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound", **headers)
            return
        data = files[name]
        headers["ETag"] = f'"{hashlib.sha1(data).hexdigest()}"'
        if _is_large(name):
            headers |= {"X_Linked_Size": str(len(data)), "X_Linked_ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
        self.send(200, self.server.broken.get(name, data), **headers)

    def may_read(self, repository: str, revision: str) -> bool:
        known = repository in self.server.repositories
        if not known or (repository in self.server.private and self.token not in (TOKEN, READER)):
            # The hub hides whether a repository is absent or private.
            self.send(404 if self.token else 401, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        elif revision not in self.server.repositories[repository]:
            self.send(404, {"error": f"Invalid rev id: {revision}"}, X_Error_Code="RevisionNotFound")
        else:
            return True
        return False


def _is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".png"))


@contextlib.contextmanager
def serve() -> Iterator[Hub]:
    """Return a context with a running server."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
