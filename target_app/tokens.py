"""Signed tokens: what a visitor's session is known by, and what the forms of that session are sent with."""

import hashlib

from itsdangerous import BadSignature, Signer

from target_app.settings import Settings


class Tokens:
    """Signs with ``session_secret``. A session's token says nothing by itself: whose it is stands in the database."""

    def __init__(self, settings: Settings) -> None:
        secret = settings.session_secret.get_secret_value()
        self._session = Signer(secret, salt="session", digest_method=hashlib.sha256)
        self._form = Signer(secret, salt="form", digest_method=hashlib.sha256)

    def signed(self, token: str) -> str:
        """Return the token as it is handed out."""
        return self._session.sign(token).decode()

    def token_of(self, text: str | None) -> str | None:
        """Return the token that was handed out as ``text``; None for what we did not sign."""
        if text is None:
            return None
        try:
            return self._session.unsign(text).decode()
        except (BadSignature, UnicodeError):
            return None

    def form_token(self, token: str) -> str:
        """Return what every form of this session carries: another site can neither read nor make it."""
        return self._form.get_signature(token).decode()

    def is_form_token(self, token: str, text: str) -> bool:
        """Tell whether a form of this session carries that, in constant time."""
        return text.isascii() and self._form.verify_signature(token, text)
