"""The pages in a real Chromium: from registration to the gate without JavaScript, and what a screen reader finds."""

import os
import re
import shutil
import uuid
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.integration.opened_sale import Stores
from tests.integration.served_sale import Service, serving

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PASSWORD = "correct horse battery"
WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        missing = f"Chromium: none of {', '.join(NAMES)} is on PATH (Debian: apt-get install chromium)"
        if os.environ.get("TICKETBENCH_TEST_CHROMIUM") == "required":
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as playwright:
        # Root has no sandbox of Chromium's; what is shown here are pages of our own.
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def service(places: Stores) -> Iterator[Service]:
    with serving(places) as served:
        yield served


def register(page: Page, name: str = "Ann Miller") -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("E-mail address").fill(f"{uuid.uuid4().hex}@example.org")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Create the account").click()


def heading(page: Page, text: str) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile(text))


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_from_registration_to_the_gate_without_javascript(
    browser: Browser, service: Service, viewport: dict[str, int]
) -> None:
    context = browser.new_context(java_script_enabled=False, viewport=viewport, base_url=service.url)  # type: ignore[arg-type]
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    page = context.new_page()
    page.goto("/")
    page.get_by_role("link", name="Bramley Rovers v Carrow Town").first.click()
    page.get_by_role("button", name="Log in and hold").click()
    heading(page, "Log in")
    page.locator("main").get_by_role("link", name="Register").click()
    register(page)
    expect(page.get_by_role("status")).to_have_text("Welcome! Your account is ready.")
    page.get_by_label("How many?").select_option("3")
    page.get_by_role("button", name="Put into the cart").click()
    heading(page, "Your cart")
    expect(page.get_by_text("Yours for 10 minutes")).to_have_count(3)
    page.get_by_role("button", name="Remove the ticket").first.click()
    expect(page.get_by_text("Yours for 10 minutes")).to_have_count(2)
    page.get_by_role("link", name="Check out").click()
    page.get_by_role("button", name="Pay £55.00").click()
    heading(page, "My tickets")
    expect(page.get_by_text("Valid", exact=True)).to_have_count(2)
    page.locator("main li").first.get_by_role("link").click()
    heading(page, "Bramley Rovers v Carrow Town")
    expect(page.get_by_role("img", name="Bar code of")).to_be_visible()
    code = page.locator(".stub .code").inner_text()
    page.get_by_role("link", name="At the gate").click()
    page.get_by_label("Code of the ticket").fill(code)
    page.get_by_role("button", name="Validate").click()
    expect(page.get_by_role("status")).to_contain_text("Let in")
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("link", name="My tickets").click()
    heading(page, "Log in")
    context.close()
    assert {re.sub(r"^(https?://[^/]*|data:).*", r"\1", url) for url in asked} <= {service.url, "data:"}


@pytest.mark.parametrize("light", ["light", "dark"])
def test_every_page_is_accessible_and_fits_a_phone(browser: Browser, service: Service, light: str) -> None:
    context = browser.new_context(viewport=PHONE, color_scheme=light, base_url=service.url)  # type: ignore[arg-type]
    page = context.new_page()
    axe = Axe()

    def look() -> None:
        found = axe.run(page)
        assert found.violations_count == 0, f"{page.url}: {found.generate_report()}"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), page.url

    for path in ("/", "/shop/matches/1", "/shop/matches/21", "/shop/login", "/shop/gate", "/shop/nowhere"):
        page.goto(path)
        look()
    page.goto("/shop/register")
    page.evaluate("document.querySelectorAll('form').forEach((form) => form.noValidate = true)")
    page.get_by_role("button", name="Create the account").click()
    heading(page, "Register")
    look()
    register(page, "A name that goes on and on without an end, as some do")
    for path in ("/shop/cart", "/shop/tickets", "/shop/checkout"):  # nothing in any of them yet
        page.goto(path)
        look()
    page.goto("/shop/matches/2")
    page.get_by_label("How many?").select_option("4")
    page.get_by_role("button", name="Put into the cart").click()
    look()
    page.goto("/shop/matches/2")
    page.get_by_role("button", name="Put into the cart").click()
    expect(page.get_by_role("alert")).to_contain_text("That is the limit")
    look()
    page.goto("/shop/checkout")
    look()
    page.get_by_role("button", name="Pay").click()
    look()
    page.locator("main li").first.get_by_role("link").click()
    look()
    code = page.locator(".stub .code").inner_text()
    for given, verdict in ((code, "Let in"), (code, "Shown before"), ("T-0", "Not a ticket")):
        page.goto("/shop/gate")
        page.get_by_label("Code of the ticket").fill(given)
        page.get_by_role("button", name="Validate").click()
        expect(page.locator(".verdict")).to_contain_text(verdict)
        look()
    context.close()
