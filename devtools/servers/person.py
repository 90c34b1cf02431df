"""A person who approves a device on the pages of the authorization server: by their forms, or in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import requests

from .processes import need

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

_DONE = "Sign-in Success"


class _Form(HTMLParser):
    """The first form of a page: its target, and its fields with their values."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form" and not self.action:
            self.action = given["action"] or ""
        elif tag == "input":
            self.fields[str(given["name"])] = given.get("value") or ""


def approve_by_forms(verification_uri: str, user_code: str, *, approve: bool = True) -> list[list[str]]:
    """Open the address, type the code, and follow the pages to the end.

    Args:
        approve: whether to approve the device; otherwise the login is aborted there.

    Returns:
        The names of the fields of each form that was sent.
    """
    sent = []
    answers = {"user_code": user_code, "login": "alice", "password": "anything"}
    with requests.Session() as session:
        page = session.get(verification_uri, timeout=5)
        while form := _Form(page.text):
            if not form.action or _DONE in page.text:
                break
            fields = form.fields | {name: answers[name] for name in form.fields if name in answers}
            if "confirm" in fields and not approve:
                fields["abort"] = "yes"
            sent.append(list(form.fields))
            page = session.post(form.action, fields, timeout=5)
            if "abort" in fields:
                return sent
    if _DONE not in page.text:
        raise RuntimeError(f"HTTP {page.status_code} after {sent}: {page.text[:2000]}")
    return sent


@contextmanager
def browser() -> Iterator[Chrome]:
    """A headless Chromium that can reach only this machine."""
    need("chromium", "chromedriver", packages="chromium chromium-driver")
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in ("headless=new", "no-sandbox", "no-proxy-server", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    driver = Chrome(options, ChromeService(shutil.which("chromedriver")))
    try:
        driver.set_page_load_timeout(30)
        yield driver
    finally:
        driver.quit()


def approve_in_browser(verification_uri_complete: str) -> list[str]:
    """Open the address, press the buttons, log in; returns the headings of the visited pages."""
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support import expected_conditions
    from selenium.webdriver.support.wait import WebDriverWait

    with browser() as driver:

        def page(heading: str) -> None:
            here = expected_conditions.text_to_be_present_in_element((By.TAG_NAME, "h1"), heading)
            # chromedriver has several errors for an element of a page that is being replaced.
            WebDriverWait(driver, 30, ignored_exceptions=[WebDriverException]).until(here)
            seen.append(heading)

        def press() -> None:
            driver.find_element(By.CSS_SELECTOR, "button[type=submit]").click()

        seen: list[str] = []
        driver.get(verification_uri_complete)
        page("Confirm Device")
        press()
        page("Sign-in")
        driver.find_element(By.NAME, "login").send_keys("alice")
        driver.find_element(By.NAME, "password").send_keys("anything")
        press()
        page("Authorize")
        press()
        page(_DONE)
    return seen
