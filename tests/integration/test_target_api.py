"""The JSON interface for a buyer's own program, and the document that describes it."""

import json
from collections.abc import Iterator

from target_app.errors import SaleError
from tests.integration.opened_sale import Open

FEW_SEEDED = True


async def test_the_document_has_examples_refusals_and_security_for_every_route(opened: Open) -> None:
    async with opened() as shop:
        document = (await shop.http.get("/openapi.json")).json()
    operations = {
        (method, path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert len(operations) == 16
    kinds = {kind.kind for kind in _all_kinds(SaleError)}
    for (method, path), operation in operations.items():
        assert operation["summary"], path
        assert operation["tags"], path
        assert ("security" in operation) == (path.startswith("/api/") and path not in ("/api/buyers", "/api/sessions"))
        assert "500" not in operation["responses"]
        if path != "/health":
            assert "Retry-After" in operation["responses"]["503"]["headers"], path
        for status, response in operation["responses"].items():
            assert response["description"], (method, path, status)
            for example in response.get("content", {}).get("application/json", {}).get("examples", {}).values():
                if status >= "400":
                    assert example["value"].get("error", "bad_input") in kinds | {"bad_input", "bad_request"}
    assert document["components"]["securitySchemes"]["session"]["scheme"] == "bearer"
    text = json.dumps(document)
    assert "HTTPValidationError" not in text
    assert len({operation["operationId"] for operation in operations.values()}) == len(operations)


def _all_kinds(kind: type[SaleError]) -> Iterator[type[SaleError]]:
    for each in kind.__subclasses__():
        yield each
        yield from _all_kinds(each)


async def test_registering_and_logging_in_by_program(opened: Open) -> None:
    who = {"email": "Ann@Example.org", "password": "correct horse battery"}
    async with opened(password_cost=1) as shop:
        new = await shop.http.post("/api/buyers", json={**who, "name": "Ann"})
        assert (new.status_code, new.json()["email"]) == (201, "ann@example.org")
        taken = await shop.http.post("/api/buyers", json={**who, "email": "ann@example.ORG", "name": "Eve"})
        assert (taken.status_code, taken.json()) == (409, {"error": "address_taken"})
        wrong = [
            await shop.http.post("/api/sessions", json={**who, **given})
            for given in ({"password": "wrong"}, {"email": "eve@example.org"}, {"email": "\x00"})
        ]
        assert {(answer.status_code, answer.text) for answer in wrong} == {(401, '{"error": "wrong_login"}')}
        token = (await shop.http.post("/api/sessions", json=who)).json()["token"]
        headers = {"Authorization": f"Bearer {token}"}
        assert (await shop.http.get("/api/cart", headers=headers)).status_code == 200
        assert (await shop.http.delete("/api/sessions/current", headers=headers)).status_code == 204
        assert (await shop.http.get("/api/cart", headers=headers)).status_code == 401
        still = {"Authorization": f"Bearer {new.json()['token']}"}
        assert (await shop.http.get("/api/cart", headers=still)).status_code == 200


BAD = (
    *(("email", wrong) for wrong in ("", "a", "a@b", "a b@c.de", "a@b..de", ".a@b.de", "a@-b.de", "a@b.c", "a@b@c.de")),
    *(("email", wrong) for wrong in (f"{'a' * 65}@b.de", f"a@{'b.' * 130}de", "a@b.de\x00", "\ud800@b.de", 7, None)),
    *(("name", wrong) for wrong in ("", " ", "a\nb", "\x00", "a" * 81, ["a"])),
    *(("password", wrong) for wrong in ("short", "a" * 129, None)),
    ("admin", True),
)


async def test_a_bad_registration_is_told_what_is_wrong_and_not_echoed(opened: Open) -> None:
    good = {"email": "ann@example.org", "name": "Ann", "password": "correct horse battery"}
    async with opened(password_cost=1) as shop:
        for field, value in BAD:
            body = json.dumps({**good, field: value})
            answer = await shop.http.post("/api/buyers", content=body, headers={"Content-Type": "application/json"})
            assert (answer.status_code, answer.json()["error"]) == (422, "bad_input"), (field, value)
            assert field in answer.json()["detail"][0]["where"]
            assert good["password"] not in answer.text
