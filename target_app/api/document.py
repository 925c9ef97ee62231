"""The OpenAPI document: the buyer's interface as its routes describe themselves, and the sale's own described here.

The sale's routes answer with bytes that they have made themselves, and models would only cost their worker its start.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from target_app import figures as f

_ABOUT: Final = """\
Tickets for football matches: look at what is on, hold tickets in a cart, pay, show the code at the gate.

**Two ways to buy.** A buyer with an account registers or logs in, sends the token that is answered as
`Authorization: Bearer TOKEN`, holds tickets (`POST /api/cart/holds`), and pays for them in time
(`POST /api/checkouts`). `POST /matches/{match_id}/purchases` sells one ticket in one step to anybody who names
themselves: it is what load tests use.

**Refusals** are a status and `{"error": KIND}`; the kinds are listed with each route. A 503 comes with `Retry-After`,
and the same request may be sent again: with the same `Idempotency-Key` nothing is bought or paid twice.
"""
_TAGS: Final = [
    {"name": "matches", "description": "What is on, and what is left."},
    {"name": "account", "description": "Registering, logging in and out."},
    {"name": "cart", "description": "Holding tickets for a while, and paying for them."},
    {"name": "tickets", "description": "What was bought, and the gate."},
    {"name": "service", "description": "Whether the sale is up."},
]
_MATCH: Final = {
    "id": 1, "home": "Bramley Rovers", "away": "Carrow Town", "venue": "The Orchard",
    "kickoff": "2027-08-14T15:00:00+00:00", "price_pence": 2750, "on_sale": True, "capacity": 1000, "stock": 412,
}  # fmt: skip
_TICKET: Final = {
    "ticket_id": 20001, "match_id": 1, "code": "T-0F2A9C41D37B6E58", "idempotency_key": "4f7c", "price_pence": 2750,
}  # fmt: skip
_WAITING: Final = {"state": "queued", "idempotency_key": "4f7c", "outcome": "/purchases?key=4f7c"}
_ADMISSION: Final = {"ticket_id": 20001, "match_id": 1, "first": True, "gate_token": "b1946ac92492d234"}
# Each of the sale's routes: tag, answer (status, name, example) and refusals by status.
_SALE: Final[dict[str, tuple[str, tuple[int, str, Any], dict[int, tuple[str, ...]]]]] = {
    f.MATCHES: ("matches", (200, "Matches", [_MATCH]), {}),
    f.MATCH: ("matches", (200, "Match", _MATCH), {404: ("unknown_match",)}),
    f.PURCHASE: (
        "tickets",
        (201, "Sold", _TICKET),
        {
            402: ("payment_declined",),
            404: ("unknown_match",),
            409: ("sold_out", "not_on_sale", "buyer_limit"),
            410: ("payment_refunded",),
            422: ("key_reused", "bad_input"),
        },
    ),
    f.PURCHASES: (
        "tickets",
        (200, "Sold", _TICKET),
        {
            402: ("payment_declined",),
            404: ("unknown_purchase", "unknown_match"),
            409: ("sold_out", "not_on_sale", "buyer_limit"),
            410: ("payment_refunded",),
            422: ("key_reused", "bad_input"),
        },
    ),
    f.VALIDATION: ("tickets", (200, "Admission", _ADMISSION), {404: ("unknown_ticket",)}),
    f.HEALTH: ("service", (200, "Status", {"status": "up"}), {}),
    f.READY: ("service", (200, "Status", {"status": "ready"}), {}),
}
# Of a sale with a queue: what both say as long as a purchase waits for a worker.
_QUEUED: Final = (f.PURCHASE, f.PURCHASES)
_UNAVAILABLE: Final = ("pool_timeout", "lock_timeout", "conflict", "database_error", "redis_error", "payment_unclear")
_QUEUE_UNAVAILABLE: Final = {f.PURCHASE: ("queue_full",), f.PURCHASES: ("given_up",)}
_RETRY_AFTER: Final = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
_JSON: Final = "application/json"


def document_route(routes: Sequence[BaseRoute]) -> Route:
    """Return the route that serves the document over these routes, which is made when it is first asked for."""
    made: list[bytes] = []

    async def document(_: Request) -> Response:
        if not made:
            made.append(json.dumps(_document(routes), ensure_ascii=False).encode())
        return Response(made[0], media_type=_JSON)

    return Route("/openapi.json", document)


def _document(routes: Sequence[BaseRoute]) -> dict[str, Any]:
    document = get_openapi(title="Ticket sale", version="1", description=_ABOUT, routes=routes, tags=_TAGS)
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):  # the framework's own, which nothing answers with
        schemas.pop(name, None)
    # A body that is not even text: the sale's own routes leave that to the framework.
    unreadable = _answer("The body is not JSON.", {"type": "object"}, {"unreadable": {"detail": "..."}})
    queue = f.PURCHASES in document["paths"]
    for path, (tag, (status, name, example), refusals) in _SALE.items():
        if path not in document["paths"]:
            continue
        (operation,) = document["paths"][path].values()
        schemas[name] = _schema_of(example)
        described = {
            status: _answer("", {"$ref": f"#/components/schemas/{name}"}, {"answer": example}),
            **{code: _refusal(kinds) for code, kinds in refusals.items()},
        }
        if "parameters" in operation:
            described.setdefault(422, _refusal(("bad_input",)))
        if "requestBody" in operation:
            described[400] = unreadable
        if path != f.HEALTH:
            described[503] = _refusal((*_UNAVAILABLE, *(_QUEUE_UNAVAILABLE.get(path, ()) if queue else ())))
            described[503]["headers"] = _RETRY_AFTER
        if queue and path in _QUEUED:
            schemas["Waiting"] = _schema_of(_WAITING)
            described[202] = _answer("It waits.", {"$ref": "#/components/schemas/Waiting"}, {"answer": _WAITING})
            where = {"description": "where to ask again", "schema": {"type": "string"}}
            described[202]["headers"] = {**_RETRY_AFTER, "Location": where}
        operation["tags"] = [tag]
        operation["responses"] = {str(code): described[code] for code in sorted(described)}
    for operations in document["paths"].values():
        for operation in operations.values():
            _finish(operation)
    return document


def _finish(operation: dict[str, Any]) -> None:
    """Say what the framework says of every route in the same words, in words; name the operation as its function is."""
    operation["operationId"] = "_".join(operation.pop("summary").lower().split())
    operation["summary"], _, _ = operation["description"].partition(".")
    responses = operation["responses"]
    if "requestBody" in operation and "400" not in responses:
        responses["400"] = _refusal(("bad_request",))
    if "parameters" not in operation and "requestBody" not in operation:
        responses.pop("422", None)
    for status, text in {"200": "Here it is.", "201": "Done; here is what came of it.", "204": "Done."}.items():
        if status in responses:
            responses[status]["description"] = text


def _answer(text: str, schema: dict[str, Any], examples: dict[str, Any]) -> dict[str, Any]:
    shown = {name: {"value": value} for name, value in examples.items()}
    return {"description": text, "content": {_JSON: {"schema": schema, "examples": shown}}}


def _refusal(kinds: tuple[str, ...]) -> dict[str, Any]:
    names = [name for name, used in (("InputFault", "bad_input" in kinds), ("Fault", kinds != ("bad_input",))) if used]
    schemas = [{"$ref": f"#/components/schemas/{name}"} for name in names]
    detail = {"detail": [{"where": "path.match_id", "what": "Input should be greater than or equal to 1"}]}
    examples = {kind: {"error": kind} | (detail if kind == "bad_input" else {}) for kind in kinds}
    return _answer("Refused: " + ", ".join(kinds) + ".", {"anyOf": schemas} if schemas[1:] else schemas[0], examples)


def _schema_of(example: Any) -> dict[str, Any]:
    """Return the schema of an answer that always has these keys."""
    match example:
        case bool():
            return {"type": "boolean"}
        case int():
            return {"type": "integer"}
        case str():
            return {"type": "string"}
        case list():
            return {"type": "array", "items": {"$ref": "#/components/schemas/Match"}}
        case dict():
            properties = {name: _schema_of(value) for name, value in example.items()}
            return {"type": "object", "properties": properties, "required": [*properties]}
        case _:
            raise TypeError(f"not part of an answer: {example!r}")
