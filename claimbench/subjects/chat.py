"""Chat models as subjects: an OpenAI-compatible endpoint, the embedded instruct model, a directory or a hub id."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from claimbench.errors import UserError
from claimbench.spec import SubjectRef, digest
from claimbench.subjects import causal_lm
from claimbench.subjects.conversation import Chat
from claimbench.subjects.pretrained import PretrainedKind, printable

NAMES = {"smollm2-135m": causal_lm.NAMES["smollm2-135m"]}


class ChatKind(PretrainedKind[Chat]):
    """Chat models by address, name, path or hub id.

    What answers behind an address may change overnight, so its identity holds the day (UTC): nothing measured on one
    day stands for another.
    """

    kind = "chat"
    noun = "chat model"
    names = NAMES

    def resolve(self, value: Any, version: str | None) -> SubjectRef:
        if not isinstance(value, str | Path):
            raise UserError(
                "a chat model is an address (https://host/v1#model-name), a name, a directory or a hub id, "
                f"not {type(value).__name__}"
            )
        if "://" not in str(value):
            return super().resolve(value, version)
        from claimbench.subjects.endpoint import parse_address

        address = parse_address(str(value))
        label = f"{address.model} at {address.host}"
        return SubjectRef(
            kind=self.kind,
            value=label,
            identity=digest(["endpoint", address.base, address.model, datetime.now(UTC).date().isoformat()]),
            path=f"{address.base}#{address.model}",
            label=label,
            private=True,
        )

    def downloads(self, ref: SubjectRef) -> int:
        return 0 if _is_endpoint(ref) else super().downloads(ref)

    def imports(self, ref: SubjectRef) -> tuple[str, ...]:
        return () if _is_endpoint(ref) else super().imports(ref)

    def prepare(self, ref: SubjectRef) -> None:
        if _is_endpoint(ref):
            endpoint = _endpoint(ref)
            try:
                endpoint.check()
            finally:
                endpoint.close()
        else:
            super().prepare(ref)

    def open(self, ref: SubjectRef, device: str) -> Chat:
        return _endpoint(ref) if _is_endpoint(ref) else super().open(ref, device)

    def check(self, folder: Path, config: dict[str, Any]) -> None:
        causal_lm.check_causal(folder, config)
        if not _has_template(folder):
            raise UserError(
                f"{printable(str(folder))}: has no chat template; give an instruction-tuned model"
            )

    def load(self, folder: Path, shown: str, device: str) -> Chat:
        from claimbench.subjects.local_chat import local_chat

        return local_chat(causal_lm.load_causal(folder, shown, device, self.noun))


def _is_endpoint(ref: SubjectRef) -> bool:
    return "://" in ref.path


def _endpoint(ref: SubjectRef) -> Any:
    from claimbench.subjects.endpoint import Endpoint, parse_address

    return Endpoint(parse_address(ref.path))


def _has_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").exists() or (folder / "chat_template.json").exists():
        return True
    try:
        return bool(json.loads((folder / "tokenizer_config.json").read_bytes()).get("chat_template"))
    except (OSError, ValueError, AttributeError):
        return False


KIND = ChatKind()
