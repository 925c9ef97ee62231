"""What goes in and out of the interface, with the examples that its document shows."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from target_app.accounts import EMAIL_LENGTH, NAME_LENGTH, PASSWORD_LENGTHS, normal_email

MOST_AT_ONCE = 10  # tickets of one request; buyer_limit is below that unless it is set higher
_WORDS = r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$"  # no control characters, and something to be seen


def _address(text: str) -> str:
    email = normal_email(text)
    if email is None:
        raise ValueError("should be an address like name@example.org")
    return email


Email = Annotated[
    str,
    Field(min_length=6, max_length=EMAIL_LENGTH, examples=["ann@example.org"], description="in any case of letters"),
    AfterValidator(_address),
]
Password = Annotated[
    SecretStr,
    Field(min_length=PASSWORD_LENGTHS[0], max_length=PASSWORD_LENGTHS[1], examples=["correct horse battery"]),
]
Id = Annotated[int, Field(ge=1, examples=[1])]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Registration(_Frozen):
    """A new account."""

    email: Email
    name: Annotated[str, Field(min_length=1, max_length=NAME_LENGTH, pattern=_WORDS, examples=["Ann Miller"])]
    password: Password


class Login(_Frozen):
    """Who logs in."""

    email: Annotated[str, Field(min_length=1, max_length=EMAIL_LENGTH, examples=["ann@example.org"])]
    password: Annotated[
        SecretStr, Field(min_length=1, max_length=PASSWORD_LENGTHS[1], examples=["correct horse battery"])
    ]


class Wish(_Frozen):
    """Tickets to be held."""

    match_id: Annotated[int, Field(ge=1, le=2_147_483_647, examples=[1])]
    quantity: Annotated[int, Field(ge=1, le=MOST_AT_ONCE, examples=[2])] = 1


class Session(_Frozen):
    """A log-in. Send the token as ``Authorization: Bearer TOKEN``."""

    token: Annotated[str, Field(examples=["s9tJ...signed"])]
    name: Annotated[str, Field(examples=["Ann Miller"])]
    email: Annotated[str, Field(examples=["ann@example.org"])]


class _OfMatch(_Frozen):
    match_id: Id
    home: Annotated[str, Field(examples=["Bramley Rovers"])]
    away: Annotated[str, Field(examples=["Carrow Town"])]
    venue: Annotated[str, Field(examples=["The Orchard"])]
    kickoff: Annotated[datetime, Field(examples=["2027-08-14T15:00:00+00:00"])]
    price_pence: Annotated[int, Field(ge=0, examples=[2750])]


class Hold(_OfMatch):
    """A ticket in the cart. ``being_paid``: a checkout has begun, and it can't be taken out of the cart any more."""

    hold_id: Id
    expires_at: Annotated[datetime, Field(examples=["2027-08-01T12:10:00+00:00"])]
    being_paid: bool


class Cart(_Frozen):
    """What is held for the buyer. ``expired`` tickets had been in the cart and have just gone back on sale."""

    holds: tuple[Hold, ...]
    total_pence: Annotated[int, Field(ge=0, examples=[5500])]
    expired: Annotated[int, Field(ge=0, examples=[0])]


class Holding(_Frozen):
    """Tickets that are held from now on."""

    hold_ids: Annotated[tuple[int, ...], Field(examples=[[17, 18]])]
    expires_at: Annotated[datetime, Field(examples=["2027-08-01T12:10:00+00:00"])]


class Ticket(_OfMatch):
    """A ticket that is bought; ``code`` lets in at the gate."""

    ticket_id: Id
    code: Annotated[str, Field(examples=["T-0F2A9C41D37B6E58"])]
    bought_at: Annotated[datetime, Field(examples=["2027-08-01T12:03:11+00:00"])]
    validated_at: Annotated[datetime | None, Field(examples=[None])]


class Tickets(_Frozen):
    """Tickets, the nearest kick-off first."""

    tickets: tuple[Ticket, ...]


class Fault(_Frozen):
    """Why a request did not end in success."""

    error: str


class InputFault(Fault):
    """What is wrong with the input, all of it."""

    detail: Annotated[list[dict[str, Any]], Field(examples=[[{"where": "body.email", "what": "Field required"}]])]
