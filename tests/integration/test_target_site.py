"""The pages as a browser sends and gets them: forms, cookies, and everything that somebody else might try with them."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from typing import Any

import httpx

from target_app.site.visitors import COOKIE
from tests.integration.opened_sale import Open, Shop, Stores, balance, pay_with

FEW_SEEDED = True
FAST = {"pool_size": 4, "password_cost": 1, "cache": "off", "pool_timeout_s": 30}
PASSWORD = "correct horse battery"


class _Forms(HTMLParser):
    """The fields of each form of a page, by the form's address."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: dict[str, dict[str, str]] = {}
        self._in: dict[str, str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._in = self.forms.setdefault(given["action"], {})
        elif tag == "input" and self._in is not None:
            self._in[given["name"]] = given.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._in = None


class Browser:
    """Keeps cookies, follows redirects, and sends forms with what their page has put into them."""

    def __init__(self, shop: Shop) -> None:
        transport = httpx.ASGITransport(shop.http._transport.app)  # type: ignore[attr-defined]
        self.http = httpx.AsyncClient(transport=transport, base_url="http://sale", follow_redirects=True)
        self.page = httpx.Response(200)

    async def open(self, path: str, status: int = 200) -> str:
        self.page = await self.http.get(path)
        assert self.page.status_code == status, self.page.text
        return self.page.text

    def form(self, action: str) -> dict[str, str]:
        parser = _Forms()
        parser.feed(self.page.text)
        return parser.forms[action]

    async def send(self, action: str, status: int = 200, **fields: str) -> str:
        self.page = await self.http.post(action, data={**self.form(action), **fields})
        assert self.page.status_code == status, self.page.text
        return self.page.text

    async def register(self, email: str = "ann@example.org", name: str = "Ann Miller") -> str:
        await self.open("/shop/register")
        return await self.send("/shop/register", email=email, name=name, password=PASSWORD)

    async def log_in(self, email: str, password: str, status: int = 200) -> str:
        await self.open("/shop/login")
        return await self.send("/shop/login", status, email=email, password=password)


@asynccontextmanager
async def browsing(opened: Open, **levels: Any) -> AsyncIterator[tuple[Shop, Browser, Browser]]:
    """A sale, and the browsers of two people."""
    async with opened(**{**FAST, **levels}) as shop:
        ann, bob = Browser(shop), Browser(shop)
        async with ann.http, bob.http:
            yield shop, ann, bob


async def test_from_registration_to_the_gate(opened: Open, stores: Stores) -> None:
    async with browsing(opened, stock=10) as (_, ann, _):
        assert "Bramley Rovers" in await ann.open("/")
        await ann.open("/shop/matches/1")
        assert "Log in" in await ann.send("/shop/matches/1/holds", quantity="2")
        assert str(ann.page.url).endswith("/shop/login?next=/shop/matches/1")
        await ann.open("/shop/register?next=/shop/matches/1")
        welcome = await ann.send("/shop/register", email="Ann@Example.org", name="Ann Miller", password=PASSWORD)
        assert "Welcome!" in welcome
        assert ann.page.url.path == "/shop/matches/1"  # on with what was begun
        cart = await ann.send("/shop/matches/1/holds", quantity="3")
        assert "The tickets are in your cart." in cart
        assert cart.count("Yours for 10 minutes") == 3
        removal = re.search(r'action="(/shop/cart/holds/\d+/removal)"', cart)
        assert removal
        await ann.send(removal.group(1))
        assert balance(stores) == (8, 2, 0, 10)
        assert "Pay £55.00" in await ann.open("/shop/checkout")
        key = ann.form("/shop/checkout")["key"]
        assert "Thank you" in await ann.send("/shop/checkout")
        await ann.open("/shop/cart")
        again = {**ann.form("/shop/logout"), "key": key}
        ann.page = await ann.http.post("/shop/checkout", data=again)  # the button, pressed once more
        assert ann.page.url.path == "/shop/tickets"
        assert balance(stores) == (8, 0, 2, 10)
        codes = re.findall(r"T-[0-9A-F]{16}", ann.page.text)
        assert len(codes) == 2
        first = re.search(r'href="(/shop/tickets/\d+)"', ann.page.text)
        assert first
        assert f"Bar code of {codes[0]}" in await ann.open(first.group(1))
        await ann.open("/shop/gate")
        assert "Let in" in await ann.send("/shop/gate", code=f" {codes[0].lower()} ")
        assert "Shown before" in await ann.send("/shop/gate", code=codes[0])
        assert "Not a ticket" in await ann.send("/shop/gate", 404, code="T-0")
        assert "Used at" in await ann.open(first.group(1))


async def test_logging_out_ends_the_session_in_every_copy_of_its_cookie(opened: Open) -> None:
    async with browsing(opened) as (_, ann, bob):
        await ann.register()
        bob.http.cookies.set(COOKIE, ann.http.cookies[COOKIE])
        assert "Ann Miller" in await bob.open("/shop/cart")
        await ann.open("/")
        assert "You are logged out." in await ann.send("/shop/logout")
        for browser in (ann, bob):
            await browser.open("/shop/cart")
            assert browser.page.url.path == "/shop/login"
        await ann.log_in("ANN@example.org ", PASSWORD)
        assert "Ann Miller" in await ann.open("/shop/tickets")


async def test_a_log_in_takes_no_session_over_that_was_there_before(opened: Open) -> None:
    async with browsing(opened) as (_, ann, _):
        await ann.open("/shop/register")
        before = ann.http.cookies[COOKIE]
        await ann.register()
        assert ann.http.cookies[COOKIE] != before


async def test_a_log_in_that_fails_does_not_tell_why(opened: Open) -> None:
    async with browsing(opened) as (_, ann, bob):
        await ann.register()
        answers = [
            await bob.log_in("ann@example.org", "not the password", 401),
            await bob.log_in("eve@example.org", "not the password", 401),
            await bob.log_in("ann@example.org", "x" * 500, 401),
            await bob.log_in("not an address\x00", PASSWORD, 401),
        ]
        said = {re.search(r'role="alert">([^<]*)<', text).group(1) for text in answers}  # type: ignore[union-attr]
        assert said == {"That did not work Address and password do not belong together."}


async def test_the_cookie_is_signed_hidden_from_scripts_and_not_sent_by_other_sites(opened: Open) -> None:
    async with browsing(opened) as (shop, ann, bob):
        await ann.open("/")
        (cookie,) = ann.page.headers.get_list("set-cookie")
        assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(cookie.split("; "))
        await ann.register()
        value = ann.http.cookies[COOKIE]
        token, _, signature = value.rpartition(".")
        other = token[:-1] + ("A" if token[-1] != "A" else "B")
        for tampered in (f"{other}.{signature}", f"{token}.", token, f"{value}x", "", "é", "." * 300):
            headers = {"Cookie": f"{COOKIE}={tampered}".encode()}
            answer = await bob.http.get("/shop/cart", headers=headers)
            assert answer.url.path == "/shop/login"
        secure = httpx.AsyncClient(
            transport=httpx.ASGITransport(shop.http._transport.app),  # type: ignore[attr-defined]
            base_url="https://sale",
        )
        async with secure:
            assert "Secure" in (await secure.get("/")).headers["set-cookie"]


FORMS = (
    ("/shop/register", {"email": "eve@example.org", "name": "Eve", "password": PASSWORD}),
    ("/shop/login", {"email": "ann@example.org", "password": PASSWORD}),
    ("/shop/logout", {}),
    ("/shop/matches/1/holds", {"quantity": "1"}),
    ("/shop/cart/holds/1/removal", {}),
    ("/shop/checkout", {"key": "k"}),
    ("/shop/gate", {"code": "SEED-000001"}),
)


async def test_a_form_of_another_site_or_session_does_nothing(opened: Open, stores: Stores) -> None:
    async with browsing(opened, stock=10) as (shop, ann, bob):
        await ann.register()
        await ann.open("/shop/matches/1")
        await ann.send("/shop/matches/1/holds", quantity="1")
        await bob.register("bob@example.org", "Bob")
        await bob.open("/")
        bobs = bob.form("/shop/logout")["form_token"]
        before = balance(stores)
        for action, fields in FORMS:
            for token in ({}, {"form_token": ""}, {"form_token": bobs}, {"form_token": "é"}):
                answer = await ann.http.post(action, data={"": "", **fields, **token})
                assert answer.status_code == 403, action
                assert "This form is too old" in answer.text
            stranger = Browser(shop)
            async with stranger.http:
                answer = await stranger.http.post(action, data={**fields, "form_token": bobs})
                assert answer.status_code == 403 or answer.url.path == "/shop/login"
        assert balance(stores) == before
        assert "Ann Miller" in await ann.open("/shop/cart")  # still logged in
        assert stores.one("SELECT count(*) FROM buyers") == 2
        assert stores.one("SELECT validated_at IS NULL FROM tickets WHERE code = 'SEED-000001'")


async def test_what_is_no_form_of_ours_is_refused(opened: Open) -> None:
    async with browsing(opened) as (_, ann, _):
        await ann.open("/shop/login")
        token = ann.form("/shop/login")["form_token"]
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        bodies = (
            (b"form_token=" + token.encode() + b"&email=" + b"a" * 20_000, kind),
            (f"form_token={token}&email=%ff%fe".encode(), kind),
            (f"form_token={token}&email=\xe9".encode(), kind),
            ("&".join(f"a{n}=1" for n in range(30)).encode(), kind),
            (b'{"form_token": "x"}', {"Content-Type": "application/json"}),
            (b"", {}),
        )
        for body, headers in bodies:
            answer = await ann.http.post("/shop/login", content=body, headers=headers)
            assert (answer.status_code, "not understood" in answer.text) == (400, True)


async def test_one_buyer_gets_nothing_of_another(opened: Open, stores: Stores) -> None:
    async with browsing(opened, stock=10) as (_, ann, bob):
        await ann.register()
        await ann.open("/shop/matches/1")
        await ann.send("/shop/matches/1/holds", quantity="2")
        await ann.open("/shop/checkout")
        await ann.send("/shop/checkout")
        ticket = stores.one("SELECT min(id) FROM tickets WHERE match_id = 1")
        await ann.open("/shop/matches/2")
        await ann.send("/shop/matches/2/holds", quantity="1")
        hold = stores.one("SELECT id FROM holds")
        await bob.register("bob@example.org", "Bob")
        unknown = await bob.open("/shop/tickets/99999999", 404)
        assert await bob.open(f"/shop/tickets/{ticket}", 404) == unknown.replace("99999999", str(ticket))
        assert "There is nothing in your cart." in await bob.open("/shop/cart")
        assert "You have no tickets yet." in await bob.open("/shop/tickets")
        token = bob.form("/shop/logout")
        answer = await bob.http.post(f"/shop/cart/holds/{hold}/removal", data=token)
        assert answer.status_code == 404
        assert stores.one("SELECT count(*) FROM holds") == 1


async def test_what_people_write_is_text_and_never_markup(opened: Open) -> None:
    name = "<script>alert(1)</script>\"'&amp; {{ 7 * 7 }}"
    async with browsing(opened) as (_, ann, bob):
        page = await ann.register(name=name)
        assert "<script" not in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;&amp;amp; {{ 7 * 7 }}" in page
        await bob.open("/shop/register")
        page = await bob.send("/shop/register", 422, email='"><img src=x onerror=y>', name=name, password="short")
        assert "<img" not in page
        assert "<script" not in page
        assert page.count('aria-invalid="true"') == 2
        await bob.open("/shop/gate")
        page = await bob.send("/shop/gate", 404, code="<b>x</b>" * 20)
        assert "<b>x" not in page
        assert "<u>" not in await bob.open("/shop/login?next=%22%3E%3Cu%3E")
        assert "<u>" not in await bob.open("/?notice=%3Cu%3E")
        assert "49" not in await bob.open("/shop/{{7*7}}", 404)


ELSEWHERE = ("https://evil.example", "//evil.example", "/\\evil.example", "/shop//evil.example", "javascript:x", "/x")


async def test_a_log_in_leads_to_pages_of_ours_only(opened: Open) -> None:
    async with browsing(opened) as (shop, _, _):
        for number, elsewhere in enumerate(ELSEWHERE):
            ann = Browser(shop)
            async with ann.http:
                ann.page = await ann.http.get("/shop/register", params={"next": elsewhere})
                assert ann.form("/shop/register")["next"] == "/"
                ann.http.follow_redirects = False
                who = {"email": f"a{number}@example.org", "name": "A", "password": PASSWORD}
                await ann.send("/shop/register", 303, **who, next=elsewhere)
                assert ann.page.headers["location"] == "/?notice=welcome"


async def test_every_page_asks_nobody_else_and_lets_nobody_frame_it(opened: Open) -> None:
    async with browsing(opened) as (_, ann, _):
        for path in ("/", "/shop/matches/1", "/shop/login", "/shop/register", "/shop/gate", "/shop/nowhere"):
            page = await ann.http.get(path)
            policy = page.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert page.headers["cache-control"] == "no-store"
            assert not re.search(r"""(?:src|href|action)=["'](?:https?:)?//""", page.text)
            assert "<script" not in page.text
            assert "style=" not in page.text
        style = re.search(r'href="(/shop/style.css\?v=\w+)"', page.text)
        assert style
        sheet = await ann.http.get(style.group(1))
        assert (sheet.status_code, sheet.headers["content-type"]) == (200, "text/css; charset=utf-8")
        assert "url(" not in sheet.text


async def test_refusals_are_pages_too(opened: Open, stores: Stores) -> None:
    async with browsing(opened, stock=3, buyer_limit=2) as (shop, ann, bob):
        await ann.register()
        await bob.register("bob@example.org", "Bob")
        await ann.open("/shop/matches/1")
        await ann.send("/shop/matches/1/holds", quantity="2")
        await ann.open("/shop/matches/1")
        assert "That is the limit" in await ann.send("/shop/matches/1/holds", 409, quantity="1")
        await bob.open("/shop/matches/1")
        assert "Not so many left" in await bob.send("/shop/matches/1/holds", 409, quantity="2")
        await bob.send("/shop/matches/1/holds", quantity="1")
        assert "Sold out" in await bob.open("/shop/matches/1")
        assert "not being sold" in await bob.open("/shop/matches/21")
        for wrong in ("0", "11", "x", "-1", "1.5", "9" * 40):
            await ann.open("/shop/matches/2")
            assert "not understood" in await ann.send("/shop/matches/2/holds", 400, quantity=wrong)
        till = pay_with(shop)
        till.declining = True
        await ann.open("/shop/checkout")
        assert "Payment declined" in await ann.send("/shop/checkout", 402)
        stores.sql.execute("UPDATE holds SET expires_at = now() - interval '1 second'")
        assert "2 tickets went back on sale." in await ann.open("/shop/cart")
        for path in ("/shop/matches/0", "/shop/matches/99999999999", "/shop/matches/77", "/shop/tickets/9" + "9" * 30):
            await ann.open(path, 404)
        assert "does not work" in (await ann.http.post("/")).text
        assert (await shop.http.get("/nowhere")).json() == {"error": "not_found"}


async def test_an_address_registers_once_however_it_is_written(opened: Open) -> None:
    async with browsing(opened) as (_, ann, bob):
        await ann.register("ann@example.org")
        await bob.open("/shop/register")
        page = await bob.send("/shop/register", 409, email=" ANN@example.org ", name="Bob", password=PASSWORD)
        assert "Registered already" in page


async def test_a_sale_that_cannot_answer_says_so_on_a_page(opened: Open) -> None:
    async with browsing(opened, pool_size=1, max_overflow=0, pool_timeout_s=0.05) as (shop, ann, _):
        await ann.open("/")
        stages = shop.sale.figures.routes["/ready"].stages
        async with shop.sale.database.autocommit(stages):
            for path in ("/", "/shop/matches/1", "/shop/cart"):
                page = await ann.http.get(path)
                assert (page.status_code, page.headers["retry-after"]) == (503, "1")
                assert "Very busy just now" in page.text
            answer = await shop.http.post("/api/sessions", json={"email": "a@b.cd", "password": "x"})
            assert (answer.status_code, answer.json()) == (503, {"error": "pool_timeout"})
            assert answer.headers["retry-after"] == "1"
        await ann.open("/")


async def test_a_password_is_kept_as_argon2id_and_renewed_at_another_cost(opened: Open, stores: Stores) -> None:
    async with browsing(opened, password_cost=1) as (_, ann, _):
        await ann.register()
    assert stores.one("SELECT password_hash FROM buyers").startswith("$argon2id$v=19$m=19456,t=1,p=1$")
    async with browsing(opened, password_cost=2, seed=False) as (_, ann, _):
        await ann.log_in("ann@example.org", PASSWORD)
        renewed = stores.one("SELECT password_hash FROM buyers")
        assert ",t=2," in renewed
        await ann.log_in("ann@example.org", PASSWORD)
        assert stores.one("SELECT password_hash FROM buyers") == renewed
    assert PASSWORD not in renewed


async def test_more_passwords_than_are_let_wait_are_refused(opened: Open) -> None:
    async with browsing(opened) as (shop, _, _):
        shop.sale.passwords._under_way = 66
        answer = await shop.http.post("/api/sessions", json={"email": "a@example.org", "password": "x"})
        assert (answer.status_code, answer.json()["error"], answer.headers["retry-after"]) == (
            503,
            "passwords_busy",
            "1",
        )


async def test_sessions_end_and_are_forgotten(opened: Open, stores: Stores) -> None:
    async with browsing(opened) as (shop, ann, _):
        await ann.register()
        stores.sql.execute("UPDATE sessions SET expires_at = now() - interval '1 second'")
        await ann.open("/shop/cart")
        assert ann.page.url.path == "/shop/login"
        await shop.sale.sweeper.sweep()
        assert stores.one("SELECT count(*) FROM sessions") == 0
