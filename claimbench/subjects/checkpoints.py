"""Model directories in Hugging Face's layout, here or on a hub: what they must hold, and the hash of what they hold.

No torch and no transformers: a directory is judged by its files' names, its config.json and its safetensors' headers.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from claimbench.errors import UserError
from claimbench.paths import cache_dir, write_atomically
from claimbench.spec import digest
from claimbench.subjects.store import sha256_of
from claimbench.subjects.wheels import Unreachable

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

CONTENT = (
    "*.safetensors",
    "*.json",
    "*.jinja",
    "*.model",
    "*.txt",
)  # what loading reads; a README changes no model
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT = 10.0  # seconds that a hub may take to answer a question


def check_directory(folder: Path) -> dict[str, Any]:
    """The config of a model directory whose files are whole. Raises UserError naming what is missing or broken."""
    if not folder.exists():
        raise UserError(f"{folder}: no such directory")
    if not folder.is_dir():
        raise UserError(
            f"{folder}: not a directory; give the folder that holds config.json and *.safetensors"
        )
    try:
        names = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise UserError(f"{folder}: cannot be read: {error.strerror}") from None
    if "config.json" not in names:
        raise UserError(f"{folder}: no model directory: config.json is missing")
    config = _json(folder / "config.json")
    if not isinstance(config, dict) or not config.get("model_type"):
        raise UserError(f"{folder / 'config.json'}: names no model_type, so no architecture can be chosen")
    for name in _weight_files(folder, names):
        _check_safetensors(folder / name)
    return config


def _weight_files(folder: Path, names: set[str]) -> list[str]:
    index = folder / "model.safetensors.index.json"
    if index.name in names:
        mapping = _json(index)
        shards = sorted(set(mapping.get("weight_map", {}).values())) if isinstance(mapping, dict) else []
        missing = [name for name in shards if name not in names]
        if missing or not shards:
            raise UserError(f"{index}: lists {len(shards)} shards, missing: {', '.join(missing) or 'all'}")
        return shards
    found = sorted(name for name in names if name.endswith(".safetensors"))
    if "adapter_config.json" in names and "model.safetensors" not in names:
        raise UserError(
            f"{folder}: holds an adapter, not a model; merge it into its base model and save that"
        )
    if not found:
        pickled = any(name.endswith((".bin", ".pt", ".pth")) for name in names)
        how = (
            "; its pickled weights are not loaded: save them with safe_serialization=True" if pickled else ""
        )
        raise UserError(f"{folder}: no model directory: *.safetensors is missing{how}")
    return found


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from None


def _check_safetensors(path: Path) -> None:
    """The header must describe exactly the bytes that follow it: half a download is found before an hour of trials."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size, 100_000_000):
                raise ValueError("longer than the file")
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        whole = size == 8 + length + max(ends, default=0)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (struct.error, ValueError, AttributeError, KeyError, TypeError, IndexError):
        raise UserError(f"{path}: not a safetensors file; download or save it again") from None
    if not whole:
        raise UserError(
            f"{path}: incomplete: its header promises other than its {size} bytes; download or save it again"
        )


def content_identity(folder: Path, nested: Sequence[str] = ()) -> str:
    """The hash of all files that loading reads, by name and sha256: equal for a copy at another path.

    nested: patterns of further files, in folders of the directory.
    """
    patterns = (*CONTENT, *nested)
    found = {
        path.relative_to(folder).as_posix(): path
        for pattern in patterns
        for path in folder.glob(pattern)
        if path.is_file()
    }
    found.pop("claimbench.json", None)
    try:
        return digest({name: sha256_of(path) for name, path in found.items()})
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from None


def hub_commit(value: str) -> tuple[str, str, bool]:
    """Repository, commit and whether it may be private, of "org/name[@revision]".

    A full commit needs no network. Without network the commit counts that the hub named last time.
    """
    repository, _, revision = value.partition("@")
    note = cache_dir() / "subjects" / "hub" / f"{digest([repository, revision])}.json"
    if not COMMIT.fullmatch(revision) or not note.exists():
        try:
            info = _info(repository, revision or None, sizes=False)
            write_atomically(note, json.dumps({"commit": info.sha, "private": bool(info.private)}).encode())
        except Unreachable:
            if not note.exists():
                commit = (
                    revision if COMMIT.fullmatch(revision) else _cached_commit(repository, revision or "main")
                )
                if commit is None:
                    raise
                return repository, commit, True
    noted = _json(note)
    return repository, str(noted["commit"]), bool(noted["private"])


def _cached_commit(repository: str, revision: str) -> str | None:
    """The commit that another program downloaded into the hub's cache for this revision."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, "config.json", revision=revision)
    return Path(found).parent.name if isinstance(found, str) else None


def _info(repository: str, revision: str | None, *, sizes: bool) -> ModelInfo:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    name = f"{repository}@{revision}" if revision else repository
    try:
        return HfApi().model_info(repository, revision=revision, timeout=_TIMEOUT, files_metadata=sizes)
    except GatedRepoError:
        raise UserError(
            f'hub model "{name}": gated; accept its terms on the hub and run hf auth login'
        ) from None
    except RevisionNotFoundError:
        raise UserError(f'hub model "{repository}": no revision "{revision}"') from None
    except RepositoryNotFoundError:
        raise UserError(
            f'"{name}": no such directory here and no such model on the hub (or it is private: hf auth login)'
        ) from None
    except OfflineModeIsEnabled:
        raise Unreachable(
            f'hub model "{name}": HF_HUB_OFFLINE is set and it is not in the hub cache'
        ) from None
    except (HfHubHTTPError, OSError) as error:
        raise Unreachable(_unreachable(name, error)) from None
    except Exception as error:
        # Which exceptions mean "no network" depends on the HTTP library that huggingface_hub uses.
        if type(error).__module__.split(".")[0] in (
            "httpx",
            "httpcore",
            "httpx2",
            "httpcore2",
            "requests",
            "urllib3",
        ):
            raise Unreachable(_unreachable(name, error)) from None
        raise


def _unreachable(name: str, error: BaseException) -> str:
    reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
    return (
        f'"{name}": no such directory here, and the model hub cannot be reached ({reason}); '
        "give a local directory or try later"
    )


def _wanted(name: str) -> bool:
    return "/" not in name and any(Path(name).match(pattern) for pattern in CONTENT)


def hub_bytes(repository: str, commit: str) -> int:
    """Bytes that `hub_directory` would download; 0 when they are there."""
    if _local_snapshot(repository, commit) is not None:
        return 0
    files = _info(repository, commit, sizes=True).siblings or []
    return sum(file.size or 0 for file in files if _wanted(file.rfilename))


def hub_directory(repository: str, commit: str) -> Path:
    """The model's files at this commit, downloaded into the hub's own cache if they are not there."""
    found = _local_snapshot(repository, commit)
    if found is None:
        from huggingface_hub import snapshot_download

        _info(repository, commit, sizes=False)
        try:
            found = Path(snapshot_download(repository, revision=commit, allow_patterns=list(CONTENT)))
        except OSError as error:
            raise Unreachable(_unreachable(repository, error)) from None
    return found


def _local_snapshot(repository: str, commit: str) -> Path | None:
    """A whole snapshot in the hub's cache, or None."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = Path(
            snapshot_download(
                repository, revision=commit, allow_patterns=list(CONTENT), local_files_only=True
            )
        )
        check_directory(found)
    except (LocalEntryNotFoundError, UserError):
        return None
    return found
