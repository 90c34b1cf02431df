"""A device without this library at the embedded authorization server, and the person with a browser who approves it."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import jwt
import requests

from devtools.servers.secret_check import remember_secret
from mqtt_token_client import DeviceFlow
from mqtt_token_client.testing import AuthorizationServer

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"

Answer = dict[str, Any]


def post(server: AuthorizationServer, path: str, **fields: str) -> requests.Response:
    fields = {"client_id": server.device_client_id} | fields
    response = requests.post(f"{server.issuer}/{path}", data=fields, timeout=5)
    if response.headers["Content-Type"] == "application/json":
        for name in ("access_token", "refresh_token", "device_code"):
            if name in response.json():
                remember_secret(response.json()[name])
    return response


def begin(server: AuthorizationServer, **fields: str) -> Answer:
    response = post(server, "device_authorization", **fields)
    assert response.status_code == 200, response.text
    answer: Answer = response.json()
    return answer


def poll(server: AuthorizationServer, device_code: str, **fields: str) -> Answer:
    answer: Answer = post(server, "token", grant_type=DEVICE_GRANT, device_code=device_code, **fields).json()
    return answer


def refresh(server: AuthorizationServer, refresh_token: str, **fields: str) -> Answer:
    answer: Answer = post(server, "token", grant_type="refresh_token", refresh_token=refresh_token, **fields).json()
    return answer


def log_in(server: AuthorizationServer, subject: str = "alice", **fields: str) -> Answer:
    login = begin(server, **fields)
    server.approve(login["user_code"], subject)
    return poll(server, login["device_code"])


def claims(access_token: str) -> Answer:
    content: Answer = jwt.decode(access_token, options={"verify_signature": False})
    return content


class Page(HTMLParser):
    """A page as a browser reads it: its text, the fields of its form, its buttons, its elements."""

    def __init__(self, response: requests.Response) -> None:
        super().__init__()
        self.status = response.status_code
        self.url = response.url.partition("?")[0]
        self.text = ""
        self.method = ""
        self.fields: dict[str, str] = {}
        self.buttons: list[tuple[str, str]] = []
        self.elements: set[str] = set()
        self.feed(response.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.elements.add(tag)
        if tag == "form":
            self.method = given["method"]
        elif tag == "input":
            self.fields[given["name"]] = given.get("value", "")
        elif tag == "button":
            self.buttons.append((given.get("name", ""), given.get("value", "")))

    def handle_data(self, data: str) -> None:
        self.text += data

    def send(self, **typed: str) -> Page:
        fields = self.fields | typed
        if self.method == "get":
            return Page(requests.get(self.url, fields, timeout=5))
        return Page(requests.post(self.url, fields, timeout=5))


def open_page(address: str) -> Page:
    return Page(requests.get(address, timeout=5))


def device_flow(server: AuthorizationServer, prompt: Callable[[Any], object]) -> DeviceFlow:
    """The same device with this library."""
    return DeviceFlow(issuer=server.issuer, client_id=server.device_client_id, prompt=prompt)
