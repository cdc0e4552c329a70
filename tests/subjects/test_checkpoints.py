from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from claimbench.errors import UserError
from claimbench.subjects import checkpoints

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def model(saved_model: Path, tmp_path: Path, own_cache: Path) -> Path:
    return Path(shutil.copytree(saved_model, tmp_path / "model"))


def test_a_whole_directory_passes_and_its_copy_is_the_same_subject(model: Path, tmp_path: Path) -> None:
    assert checkpoints.check_directory(model)["model_type"] == "llama"
    copy = Path(shutil.copytree(model, tmp_path / "copy"))
    (copy / "README.md").write_text("other words")
    assert checkpoints.content_identity(copy) == checkpoints.content_identity(model)
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "model.safetensors").write_bytes(content)
    assert checkpoints.content_identity(copy) != checkpoints.content_identity(model)


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _adapter(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text("{}")


def _shards(folder: Path) -> None:
    shards = {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json: not JSON"),
        (lambda folder: (folder / "config.json").write_text("{}"), "names no model_type"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"\*.safetensors is missing"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"abc"), "not a safetensors file"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 64), "not a safetensors file"),
        (_truncate, "incomplete"),
        (_pickled, "safe_serialization=True"),
        (_adapter, "merge it into its base model"),
        (_shards, "missing: model-00002-of-00002.safetensors"),
    ],
)
def test_what_is_missing_or_broken_is_named(model: Path, damage: object, complaint: str) -> None:
    damage(model)  # type: ignore[operator]  # a function of the folder
    with pytest.raises(UserError, match=complaint) as caught:
        checkpoints.check_directory(model)
    assert "\n" not in str(caught.value)


def test_a_file_and_nothing_are_no_directories(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").touch()
    with pytest.raises(UserError, match="not a directory"):
        checkpoints.check_directory(tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match="no such directory"):
        checkpoints.check_directory(tmp_path / "nothing")


class Hub(BaseHTTPRequestHandler):
    """The little of a model hub that its client asks for: one model, one gated one, nothing else."""

    folder: Path

    def log_message(self, *arguments: object) -> None: ...

    def _answer(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        files = {file.name: file for file in self.folder.iterdir()}
        if path.startswith("/api/models/org/small/tree/"):
            tree = [
                {
                    "type": "file",
                    "path": name,
                    "size": file.stat().st_size,
                    "oid": hashlib.sha1(name.encode()).hexdigest(),
                }
                for name, file in files.items()
            ]
            return self._answer(200, json.dumps(tree).encode(), Content_Type="application/json")
        if path.startswith(("/api/models/org/small/revision/", "/api/models/org/small")):
            revision = path.rpartition("/revision/")[2] if "/revision/" in path else "main"
            if revision not in ("main", COMMIT):
                return self._answer(404, X_Error_Code="RevisionNotFound")
            siblings = [
                {"rfilename": name, **({"size": file.stat().st_size} if "blobs" in query else {})}
                for name, file in files.items()
            ]
            info = {
                "id": "org/small",
                "sha": COMMIT,
                "private": False,
                "siblings": siblings,
                "tags": [],
                "downloads": 0,
            }
            return self._answer(200, json.dumps(info).encode(), Content_Type="application/json")
        if path.startswith(f"/org/small/resolve/{COMMIT}/"):
            content = files[path.rpartition("/")[2]].read_bytes()
            tag = hashlib.sha256(content).hexdigest()
            return self._answer(200, content, ETag=f'"{tag}"', X_Repo_Commit=COMMIT)
        if path.startswith("/api/models/org/gated"):
            return self._answer(403, X_Error_Code="GatedRepo")
        return self._answer(404, X_Error_Code="RepoNotFound")

    do_HEAD = do_GET


@pytest.fixture
def hub(saved_model: Path) -> Iterator[str]:
    handler = type("OneModel", (Hub,), {"folder": saved_model})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def _ask(code: str, hub: str, home: Path) -> list[str]:
    """Run lines that print, in a fresh process: the hub's client reads its settings once."""
    program = "from claimbench.errors import UserError\nfrom claimbench.subjects import *\n"
    program += "from claimbench.subjects import checkpoints\n"
    program += "def tried(value):\n    try:\n        return resolve_subject('causal-lm', value)\n"
    program += "    except UserError as error:\n        return error\n"
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment |= {"HF_ENDPOINT": hub, "HF_HOME": str(home), "CLAIMBENCH_CACHE": str(home / "claimbench")}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program + code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_hub_model_is_pinned_to_its_commit_downloaded_and_found_without_the_hub(
    hub: str, tmp_path: Path, saved_model: Path, own_cache: Path
) -> None:
    where = "print(checkpoints.content_identity(checkpoints.hub_directory('org/small', ref.value[-40:])))\n"
    lines = _ask(
        "ref = tried('org/small')\nprint(ref.value, ref.private, downloads([ref]) > 10_000)\n"
        "prepare([ref])\nprint(downloads([ref]))\n"
        + where
        + "print(tried('org/small@main').identity == ref.identity)\n"
        "print(tried('org/small@v9'))\nprint(tried('org/none'))\nprint(tried('org/gated'))\n",
        hub,
        tmp_path,
    )
    identity = checkpoints.content_identity(saved_model)
    assert lines[:4] == [f"org/small@{COMMIT} False True", "0", identity, "True"]
    assert 'no revision "v9"' in lines[4]
    assert "no such directory here and no such model on the hub" in lines[5]
    assert "gated" in lines[6]
    assert len(lines) == 7
    gone = "http://127.0.0.1:9"
    lines = _ask(
        "ref = tried('org/small')\nprint(ref.value, ref.private)\nprepare([ref])\n"
        + where
        + "print(tried('org/none'))",
        gone,
        tmp_path,
    )
    assert lines[:2] == [f"org/small@{COMMIT} False", identity]
    assert "the model hub cannot be reached" in lines[2]
    assert len(lines) == 3
