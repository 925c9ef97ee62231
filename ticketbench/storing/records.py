"""Records as JSON files, read back only by who knows their schema version."""

import json
from typing import TypeVar

from pydantic import ValidationError

from ticketbench.errors import UsageError
from ticketbench.model import SCHEMA_VERSION
from ticketbench.record import Record

R = TypeVar("R", bound=Record)


def to_json(record: Record) -> bytes:
    """Return a record as the text of its file."""
    return (json.dumps(record.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def parse_record(kind: type[R], content: bytes, where: str) -> R:
    """Read a record from JSON. Raises UsageError for text that is no such record, or one from a newer ticketbench."""
    try:
        raw = json.loads(content)
    except (ValueError, RecursionError) as error:  # brackets in brackets, thousands deep, are no record either
        raise UsageError(
            f"{where} is not JSON: {error}", hint="the file is damaged; restore it or measure again"
        ) from error
    if not isinstance(raw, dict):
        raise UsageError(f"{where} is not a {kind.__name__}")
    version = raw.get("schema_version")
    if type(version) is not int or version < 1:
        raise UsageError(f"{where} has no schema version that this ticketbench knows, but {version!r}")
    if version > SCHEMA_VERSION:
        raise UsageError(
            f"{where} has schema version {version}, and this ticketbench knows up to {SCHEMA_VERSION}",
            hint="it was written by a newer ticketbench: upgrade",
        )
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{where} is not a {kind.__name__}: {at}: {first['msg']}") from error
