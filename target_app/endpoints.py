"""The routes: what comes in is checked here, what goes out is shaped here, and nothing is decided here."""

import json
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field

from target_app import answers
from target_app import figures as paths
from target_app.catalogue import Catalogue
from target_app.errors import SaleError
from target_app.health import Health
from target_app.locking import Accepted, Order
from target_app.purchase_queue import QueuedPurchases
from target_app.purchases import Till
from target_app.validation import Gate

_JSON: Final = "application/json"

# The bounds of the columns: anything beyond would be PostgreSQL's error to find.
MatchId = Annotated[int, Path(ge=1, le=2_147_483_647)]
TicketCode = Annotated[str, Path(pattern=r"^[A-Za-z0-9-]{1,64}$")]
IdempotencyKey = Annotated[str, Header(pattern=r"^[\x21-\x7e]{1,200}$")]


PurchaseKey = Annotated[str, Query(pattern=r"^[\x21-\x7e]{1,200}$")]


class PurchaseRequest(BaseModel):
    """The body of a purchase."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # PostgreSQL stores no NUL; other control characters have no place in a name either.
    buyer: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


def _answer(body: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(body), status, media_type=_JSON)


def _shaped(answer: tuple[int, bytes, list[tuple[bytes, bytes]]]) -> Response:
    status, body, more = answer
    return Response(body, status, {name.decode(): value.decode() for name, value in more}, _JSON)


def purchase_router(till: Till) -> APIRouter:
    """Return the route that sells."""
    router = APIRouter()

    @router.post(paths.PURCHASE, status_code=201)
    async def purchase(match_id: MatchId, idempotency_key: IdempotencyKey, body: PurchaseRequest) -> Response:
        """Buy one ticket. The same key again is answered with the same ticket."""
        return _shaped(answers.purchased(await till.purchase(Order(match_id, body.buyer, idempotency_key))))

    return router


def queue_router(queued: QueuedPurchases) -> APIRouter:
    """Return the route that tells what became of a queued purchase."""
    router = APIRouter()

    @router.get(paths.PURCHASES)
    async def outcome(key: PurchaseKey) -> Response:
        """Tell what became of a purchase. 202 as long as it waits; what it was refused with once it was."""
        result = await queued.outcome(key)
        if isinstance(result, Accepted):
            return _shaped(answers.accepted(result))
        return Response(answers.sold(result), media_type=_JSON)

    return router


def sale_router(catalogue: Catalogue, gate: Gate) -> APIRouter:
    """Return the other routes of the sale."""
    router = APIRouter()

    @router.get(paths.MATCHES)
    async def matches() -> Response:
        """All matches."""
        return Response(await catalogue.matches(), media_type=_JSON)

    @router.get(paths.MATCH)
    async def match(match_id: MatchId) -> Response:
        """One match."""
        return Response(await catalogue.match(match_id), media_type=_JSON)

    @router.post(paths.VALIDATION)
    async def validation(code: TicketCode) -> Response:
        """Let a ticket in."""
        admission = await gate.validate(code)
        return _answer(
            {
                "ticket_id": admission.ticket_id,
                "match_id": admission.match_id,
                "first": admission.first,
                "gate_token": admission.token,
            }
        )

    return router


def health_router(health: Health) -> APIRouter:
    """Return the routes that say whether the process lives and whether it can sell."""
    router = APIRouter()

    @router.get(paths.HEALTH)
    async def alive() -> Response:
        """Answer as long as the process does."""
        return _answer({"status": "up"})

    @router.get(paths.READY)
    async def ready() -> Response:
        """Answer when PostgreSQL and Redis do."""
        await health.check()
        return _answer({"status": "ready"})

    return router


async def refuse(_: Request, error: Exception) -> Response:
    """Turn a SaleError into its answer."""
    if not isinstance(error, SaleError):
        raise TypeError(f"not an end of a request: {error!r}") from error
    return _shaped(answers.trouble(error))


async def refuse_input(_: Request, error: Exception) -> Response:
    """Answer bad input with 422 and every fault, without echoing what was sent."""
    if not isinstance(error, RequestValidationError):
        raise TypeError(f"not a fault of the input: {error!r}") from error
    faults = [{"where": ".".join(map(str, each["loc"])), "what": each["msg"]} for each in error.errors()]
    return _answer({"error": "bad_input", "detail": faults}, 422)
