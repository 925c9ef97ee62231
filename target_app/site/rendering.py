"""Templates to pages, and the headers that keep them ours."""

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from target_app.site import words
from target_app.site.barcode import bars
from target_app.site.visitors import FORM_TOKEN, Visitor, Visitors

_FOLDER: Final = Path(__file__).parent
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",  # a page may name its buyer, and shows a stock that changes
}


class Problem(NamedTuple):
    """What went wrong, as a page says it."""

    heading: str
    text: str

    @classmethod
    def of(cls, kind: str, status: int) -> "Problem":
        """Return the words for a refusal."""
        return cls(*words.refusal(kind, status))


class Rendering:
    """Renders the pages; templates are compiled once."""

    def __init__(self, visitors: Visitors) -> None:
        self._visitors = visitors
        self._style = (_FOLDER / "style.css").read_bytes()
        self._templates = Environment(
            loader=FileSystemLoader(_FOLDER / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._templates.filters |= {
            "money": words.money,
            "day": words.day,
            "clock": words.clock,
            "left": words.left,
            "tickets": words.tickets,
            "bars": bars,
        }
        # With the version in its address it may be kept for ever.
        version = hashlib.sha256(self._style).hexdigest()[:12]
        self._templates.globals |= {"style_url": f"/shop/style.css?v={version}", "form_token_field": FORM_TOKEN}

    def page(self, request: Request, visitor: Visitor, template: str, status: int = 200, **values: Any) -> Response:
        """Return a page for this visitor; the cookie goes with it where there is none yet."""
        text = self._templates.get_template(template).render(
            visitor=visitor,
            path=request.url.path,
            notice=words.NOTICES.get(request.query_params.get("notice", "")),
            **values,
        )
        answer = HTMLResponse(text, status, _HEADERS)
        self._visitors.set_cookie(request, answer, visitor)
        return answer

    async def style(self, _: Request) -> Response:
        """Return the style sheet."""
        headers = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
        return Response(self._style, 200, headers, "text/css")

    @staticmethod
    def matches(body: bytes) -> list[dict[str, Any]]:
        """Return the matches of the catalogue's JSON, one or all, as templates take them."""
        read = json.loads(body)
        listed: list[dict[str, Any]] = read if isinstance(read, list) else [read]
        return [{**each, "kickoff": datetime.fromisoformat(each["kickoff"])} for each in listed]
