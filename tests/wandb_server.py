"""A stand-in for the server of wandb: it keeps what it is sent and answers what a client of 0.31
asks before it sends; no account, no network but this machine's own.
"""

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0" * 40
PROJECT = {"id": "p", "internalId": "1", "name": "iqa_lightning", "entityName": "me"}


class Run:
    """What the server knows of a run."""

    def __init__(self) -> None:
        self.history: dict[int, dict[str, Any]] = {}
        self.config: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}

    def rows(self) -> list[dict[str, Any]]:
        """The history in its order."""
        return [self.history[number] for number in sorted(self.history)]


class Server:
    """The state of the server and what it answers."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.views: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.url = ""

    def environment(self) -> dict[str, str]:
        """What a client needs to find it."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY, "WANDB_MODE": "online"}

    def stream(self, name: str, content: dict[str, Any]) -> dict[str, Any]:
        """Rows of a run."""
        run = self.runs.setdefault(name, Run())
        for file, part in (content.get("files") or {}).items():
            if "history" in file:
                for number, line in enumerate(part["content"], part.get("offset", 0)):
                    run.history[number] = json.loads(line)
        return {"exitcode": None, "limits": {}}

    def answer(self, query: str, given: dict[str, Any]) -> dict[str, Any]:
        """What a GraphQL query is answered."""
        found = re.search(r"(?:query|mutation)\s+(\w+)", query)
        operation = found[1] if found else ""
        self.asked.append(operation)
        known = getattr(self, f"on_{operation.lower()}", None)
        if known is not None:
            return {"data": known(given)}
        if "Artifact" in operation:  # tables are sent twice: as files, which count here, and so
            return {"data": None, "errors": [{"message": "no artifacts here"}]}
        viewer = {"id": "u", "entity": "me", "username": "me", "flags": "{}"}
        viewer |= {"email": "", "admin": False, "apiKeys": {"edges": []}}
        data: dict[str, Any] = {"viewer": viewer | {"teams": {"edges": []}}}
        data |= {"serverInfo": {"cliVersionInfo": {}, "features": []}}
        return {"data": data | {"model": None, "entity": None}}

    def on_runresumestatus(self, given: dict[str, Any]) -> dict[str, Any]:
        """Whether a run is there, and where its history ends."""
        run, bucket = self.runs.get(given["name"]), None
        if run and run.history:
            last = run.rows()[-1]
            bucket = {"name": given["name"], "displayName": given["name"], "id": "x"}
            bucket |= {"config": json.dumps(run.config), "wandbConfig": "{}", "tags": []}
            bucket |= {"summaryMetrics": json.dumps({"_step": last["_step"], "_runtime": 1})}
            bucket |= {"historyLineCount": len(run.history), "eventsLineCount": 0}
            bucket |= {"logLineCount": 0, "eventsTail": "[]", "jobType": None}
            bucket["historyTail"] = json.dumps([json.dumps(last)])
        entity = {"id": "e", "name": "me"}
        return {"model": {"id": "p", "name": "iqa_lightning", "entity": entity, "bucket": bucket}}

    def on_upsertbucket(self, given: dict[str, Any]) -> dict[str, Any]:
        """A run begins, or its config changes."""
        name = given.get("name") or "r"
        new, run = name not in self.runs, self.runs.setdefault(name, Run())
        run.config |= json.loads(given.get("config") or "{}")
        project = {"id": "p", "name": "iqa_lightning", "entity": {"id": "e", "name": "me"}}
        bucket = {"id": f"b{name}", "name": name, "displayName": name, "description": ""}
        bucket |= {"config": "{}", "sweepName": None, "project": project}
        bucket |= {"historyLineCount": len(run.history)}
        return {"upsertBucket": {"bucket": bucket, "inserted": new}}

    def on_createrunfiles(self, given: dict[str, Any]) -> dict[str, Any]:
        """Where files of a run are sent to."""
        run = given.get("run") or given.get("runName")
        files = [
            {"name": name, "uploadUrl": f"{self.url}/storage/{run}/{name}"}
            for name in given["files"]
        ]
        return {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": files}}

    def on_projectinternalid(self, given: dict[str, Any]) -> dict[str, Any]:
        """The number of a project."""
        return {"project": PROJECT}

    def on_getprojects(self, given: dict[str, Any]) -> dict[str, Any]:
        """All projects of an entity."""
        project: dict[str, Any] = PROJECT | {
            "createdAt": "2026-01-01T00:00:00",
            "isBenchmark": False,
        }
        project["user"] = None
        page = {"endCursor": None, "hasNextPage": False}
        return {"models": {"edges": [{"node": project, "cursor": "c"}], "pageInfo": page}}

    def on_upsertview(self, given: dict[str, Any]) -> dict[str, Any]:
        """A workspace or a report is saved."""
        self.views.append(given | {"spec": json.loads(given["spec"])})
        view = {"id": f"v{len(self.views)}", "name": given["name"], "type": given["type"]}
        view |= {"displayName": given["displayName"], "description": "", "project": PROJECT}
        view |= {"spec": given["spec"], "updatedAt": "2026-01-01T00:00:00"}
        return {"upsertView": {"view": view, "inserted": True}}

    on_upsertview2 = on_upsertview


@contextmanager
def wandb_server() -> Iterator[Server]:
    """A server on a free port of this machine."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "") == "chunked":
                parts = []
                while size := int(self.rfile.readline().strip() or b"0", 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                content = b"".join(parts)
            else:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            packed = self.headers.get("Content-Encoding") == "gzip"
            return gzip.decompress(content) if packed else content

        def reply(self, content: dict[str, Any]) -> None:
            text = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_GET(self) -> None:
            self.reply({})

        def do_PUT(self) -> None:
            _, _, run, name = self.path.split("/", 3)
            state.runs.setdefault(run, Run()).files[name.partition("?")[0]] = self.body()
            self.reply({})

        def do_POST(self) -> None:
            body = self.body()
            if found := re.search(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
                self.reply(state.stream(found[1], json.loads(body)))
            elif self.path.endswith("/graphql"):
                asked = json.loads(body)
                self.reply(state.answer(asked["query"], asked.get("variables") or {}))
            else:  # what a client measures about itself
                self.reply({})

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *args: Any) -> None:
            """A client that goes in the middle of a question is none of ours."""

    server = Quiet(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
