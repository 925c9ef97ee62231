"""What the fields of a form mean, and what is wrong with them, in words."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from target_app.accounts import EMAIL_LENGTH, NAME_LENGTH, PASSWORD_LENGTHS, normal_email

_CONTROL: Final = re.compile("[\x00-\x1f\x7f]")
_DIGITS: Final = re.compile("[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class Registration:
    """A registration as it was sent; the address in the form it is kept in, where it is one."""

    email: str
    name: str
    password: str


def registration_of(form: Mapping[str, str]) -> tuple[Registration, dict[str, str]]:
    """Return what was asked for and every fault, by field."""
    email, name, password = (form.get(field, "") for field in ("email", "name", "password"))
    name = name.strip()
    address = normal_email(email)
    faults: dict[str, str] = {}
    if address is None:
        faults["email"] = "Please give an address like name@example.org."
    if not name or len(name) > NAME_LENGTH or _CONTROL.search(name):
        faults["name"] = f"Please give a name of at most {NAME_LENGTH} letters."
    shortest, longest = PASSWORD_LENGTHS
    if not shortest <= len(password) <= longest:
        faults["password"] = f"Please choose a password of {shortest} to {longest} characters."
    return Registration(address or email[:EMAIL_LENGTH], name[:NAME_LENGTH], password), faults


def login_of(form: Mapping[str, str]) -> tuple[str, str]:
    """Return address and password. Such as nobody can have registered with are passed on: they are just as wrong."""
    return form.get("email", "")[:EMAIL_LENGTH], form.get("password", "")[: PASSWORD_LENGTHS[1] + 1]


def number_of(given: int | str, largest: int) -> int | None:
    """Return the whole number from 1 on; None for anything else."""
    if isinstance(given, str):
        if _DIGITS.fullmatch(given) is None:
            return None
        given = int(given)
    return given if 1 <= given <= largest else None
