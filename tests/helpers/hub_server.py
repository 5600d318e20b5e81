"""A stand-in for the Hugging Face Hub on this machine: what huggingface_hub asks for to read and write a model."""

import base64
import hashlib
import http.server
import json
import re
import threading
from urllib.parse import unquote

LARGE = (".safetensors", ".bin", ".pt")  # in the hub's large storage, where a file has a SHA-256


class HubServer(http.server.ThreadingHTTPServer):
    """Repositories in memory, as commits: {name: [(commit, {file: bytes})]}; the last one is main.

    `fail` maps a part of a path to a status that is answered instead; `cut` to the number of bytes after which the
    connection of a download is closed; `swapped` to bytes that are sent instead of a file's own. `tokens` are those
    that came. `on_download` is called before a file is sent.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos, self.objects, self.cards = {}, {}, {}
        self.fail, self.cut, self.swapped, self.tokens, self.asked = {}, {}, {}, set(), []
        self.on_download = lambda path: None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, repo, files):
        """Add a commit with these files, and those of the commit before."""
        before = self.repos[repo][-1][1] if self.repos.get(repo) else {}
        found = before | files
        number = hashlib.sha1(repr((repo, len(self.repos.get(repo, [])), sorted(found))).encode()).hexdigest()
        self.repos.setdefault(repo, []).append((number, found))
        return number

    def files(self, repo, revision):
        commits = self.repos.get(repo)
        if not commits:
            return None, None
        if revision == "main":
            return commits[-1]
        return next(((number, files) for number, files in commits if number == revision), (None, None))


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _answer(self, status, body=b"", headers=()):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _start(self):
        """The path; None if an error was answered."""
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        path = unquote(self.path.partition("?")[0])
        self.server.asked.append((self.command, path))
        if "Authorization" in self.headers:
            self.server.tokens.add(self.headers["Authorization"].removeprefix("Bearer "))
        for part, status in self.server.fail.items():
            if part in path:
                self._answer(status, {"error": "as the test wants it"})
                return None
        return path

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self._start()
        if path is None:
            return
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/revision/(.+))?", path):
            repo, revision = found[1], found[2] or "main"
            number, files = self.server.files(repo, revision)
            if number is None:
                code = "RevisionNotFound" if repo in self.server.repos else "RepoNotFound"
                self._answer(404, {"error": "not found"}, {"X-Error-Code": code})
                return
            siblings = [
                {"rfilename": name, "size": len(data), "blobId": "0" * 40}
                | ({"lfs": self._large(data)} if name.endswith(LARGE) else {})
                for name, data in files.items()
            ]
            card = self.server.cards.get(repo)
            self._answer(200, {"id": repo, "sha": number, "siblings": siblings, "tags": [], "cardData": card})
            return
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            number, files = self.server.files(found[1], found[2])
            if number is None or found[3] not in files:
                self._answer(404, {"error": "not found"}, {"X-Error-Code": "EntryNotFound"})
                return
            if self.command == "GET":
                self.server.on_download(found[3])
            own = files[found[3]]
            data = self.server.swapped.get(found[3], own)
            headers = {"X-Repo-Commit": number, "ETag": f'"{hashlib.sha256(own).hexdigest()}"'}
            self._send_file(found[3], data, headers)
            return
        self._answer(404, {"error": "not found"})

    def _send_file(self, name, data, headers):
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        rest = data[start:]
        self.send_response(206 if start else 200)
        for key, value in {"Content-Length": str(len(rest)), **headers}.items():
            self.send_header(key, value)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        most = self.server.cut.get(name)
        self.wfile.write(rest if most is None else rest[: max(0, most - start)])
        if most is not None:
            self.close_connection = True

    @staticmethod
    def _large(data):
        return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}

    def do_POST(self):
        path = self._start()
        if path is None:
            return
        if path == "/api/repos/create":
            wanted = json.loads(self.body)
            repo = f"{wanted['organization']}/{wanted['name']}"
            status = 409 if repo in self.server.repos else 200
            self.server.repos.setdefault(repo, [])
            self._answer(status, {"url": f"{self.server.url}/{repo}"})
        elif path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in path:
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for file in json.loads(self.body)["files"]
            ]
            self._answer(200, {"files": modes})
        elif path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                entry | {"actions": {"upload": {"href": f"{self.server.url}/store/{entry['oid']}"}}}
                for entry in json.loads(self.body)["objects"]
            ]
            self._answer(200, {"transfer": "basic", "objects": objects})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            files = {}
            for line in self.body.splitlines():
                entry = json.loads(line)
                value = entry["value"]
                if entry["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif entry["key"] == "lfsFile":
                    files[value["path"]] = self.server.objects[value["oid"]]
            number = self.server.commit(found[1], files)
            self._answer(200, {"commitUrl": f"{self.server.url}/{found[1]}/commit/{number}", "commitOid": number})
        else:
            self._answer(404, {"error": "not found"})

    def do_PUT(self):
        path = self._start()
        if path is None:
            return
        self.server.objects[path.removeprefix("/store/")] = self.body
        self._answer(200)
