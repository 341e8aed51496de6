"""A listener on loopback that plays the W&B server to the real library: it keeps uploads, artifacts and aliases.

It answers the few questions that a run and its artifacts ask, by their names, and as W&B does: content that is known is
no new artifact, and an alias is one artifact's at a time.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROJECT = {"id": "p1", "internalId": "p1", "name": "vvae-lam", "entity": {"id": "e1", "name": "me"}}
VIEWER = {"id": "u1", "entity": "me", "username": "me", "email": "", "flags": "{}", "teams": {
    "edges": [{"node": {"name": "me"}}]}}


@dataclass
class Wandb:
    """What was uploaded.

    Attributes:
        asked: names of the questions, in order.
        artifacts: by id, as they were first created, with their state.
        aliases: the id of the artifact that has each.
        named: (alias, id) in the order in which they were given.
        files: bytes by place, artifacts/ID/NAME.
    """

    address: str = ""
    asked: list[str] = field(default_factory=list)
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    named: list[tuple[str, str]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)

    def answer(self, question: str, given: dict[str, Any]) -> Any:
        """What W&B's GraphQL would say."""
        self.asked.append(question)
        return ANSWERS[question](self, given) if question in ANSWERS else {}


class Quiet(ThreadingHTTPServer):
    """Says nothing of connections that the library leaves open at its end."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing on the terminal."""


@contextmanager
def listening() -> Iterator[Wandb]:
    """The listener; WANDB_BASE_URL is to be its address."""
    wandb = Wandb()
    server = Quiet(("127.0.0.1", 0), _handler(wandb))
    wandb.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield wandb
    finally:
        server.shutdown()
        server.server_close()


def _handler(wandb: Wandb) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            """Nothing on the terminal."""

        def body(self) -> bytes:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

        def say(self, value: Any) -> None:
            text = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_PUT(self) -> None:
            wandb.files[self.path.lstrip("/")] = self.body()
            self.say({})

        def do_POST(self) -> None:
            body = self.body()
            if self.path != "/graphql":
                self.say({"exitcode": None, "limits": {}})
                return
            asked = json.loads(body)
            name = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
            self.say({"data": wandb.answer(name[1] if name else "", asked.get("variables") or {})})

    return Handler


def _run(wandb: Wandb, given: dict[str, Any]) -> Any:
    return {"upsertBucket": {"inserted": True, "bucket": {
        "id": "r1", "name": given["name"], "displayName": given["name"], "config": "{}", "project": PROJECT,
        "historyLineCount": 0}}}


def _run_files(wandb: Wandb, given: dict[str, Any]) -> Any:
    return {"createRunFiles": {"runID": "r1", "uploadHeaders": [], "files": [
        {"name": name, "uploadUrl": f"{wandb.address}/run/{name}"} for name in given["files"]]}}


def _kind(wandb: Wandb, given: dict[str, Any]) -> Any:
    return {"project": {"artifact": {"artifactType": {"name": "model"}} if wandb.artifacts else None}}


def _created(wandb: Wandb, given: dict[str, Any]) -> Any:
    asked = given["input"]
    known = next((each for each in wandb.artifacts.values() if each["digest"] == asked["digest"]), None)
    made = known or asked | {"id": f"artifact{len(wandb.artifacts)}", "state": "PENDING"}
    wandb.artifacts[made["id"]] = made
    for each in asked["aliases"]:
        wandb.aliases[each["alias"]] = made["id"]
        wandb.named.append((each["alias"], made["id"]))
    return {"createArtifact": {"artifact": {"id": made["id"], "state": made["state"],
                                            "artifactSequence": {"latestArtifact": None}}}}


def _manifest(wandb: Wandb, given: dict[str, Any]) -> Any:
    made = given["artifactID"]
    return {"createArtifactManifest": {"artifactManifest": {"id": f"manifest-{made}", "file": {
        "id": f"file-{made}", "uploadUrl": f"{wandb.address}/manifests/{made}", "uploadHeaders": []}}}}


def _places(wandb: Wandb, given: dict[str, Any]) -> Any:
    found = [(each["artifactID"], f"artifacts/{each['artifactID']}/{each['name']}")
             for each in given["input"]["artifactFiles"]]
    return {"createArtifactFiles": {"files": {"edges": [{"node": {
        "storagePath": place, "uploadUrl": f"{wandb.address}/{place}", "uploadHeaders": [], "artifact": {"id": made}}}
        for made, place in found]}}}


def _committed(wandb: Wandb, given: dict[str, Any]) -> Any:
    made = wandb.artifacts[given["artifactID"]]
    made["state"] = "COMMITTED"
    return {"commitArtifact": {"artifact": {"id": made["id"], "digest": made["digest"]}}}


def _artifact(wandb: Wandb, given: dict[str, Any]) -> Any:
    made = wandb.artifacts[given["id"]]
    collection = {"__typename": "ArtifactSequence", "name": made["artifactCollectionName"], "project": PROJECT}
    return {"artifact": {
        "__typename": "Artifact", "id": made["id"], "artifactSequence": collection, "versionIndex": 0,
        "artifactType": {"name": "model"}, "description": "", "metadata": "{}", "ttlDurationSeconds": -2,
        "ttlIsInherited": True, "tags": [], "historyStep": None, "state": made["state"], "size": 0,
        "digest": made["digest"], "commitHash": "", "fileCount": 0, "createdAt": "2026-01-01T00:00:00",
        "updatedAt": "2026-01-01T00:00:00", "aliases": [
            {"artifactCollection": collection, "__typename": "ArtifactAlias", "id": alias, "alias": alias}
            for alias, artifact in wandb.aliases.items() if artifact == made["id"]]}}


Answer = Callable[[Wandb, dict[str, Any]], Any]
ANSWERS: dict[str, Answer] = {
    "UpsertBucket": _run, "CreateRunFiles": _run_files, "Viewer": lambda wandb, given: {"viewer": VIEWER},
    "ArtifactType": _kind, "CreateArtifact": _created, "CreateArtifactManifest": _manifest,
    "CreateArtifactFiles": _places, "CommitArtifact": _committed, "ArtifactByID": _artifact}
