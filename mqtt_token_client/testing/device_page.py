"""The page where a person approves a device (RFC 8628 section 3.3): plain HTML, without scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, Response, make_response, render_template_string, request

if TYPE_CHECKING:
    from .device_grant import DeviceLogins

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'",  # RFC 6749 section 10.13
    "Referrer-Policy": "no-referrer",
}

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; }
body { font: 1.1rem/1.5 system-ui, sans-serif; max-width: 26rem; margin: 10vh auto; padding: 0 1.25rem; }
h1 { font-size: 1.5rem; }
.code { display: block; box-sizing: border-box; width: 100%; margin: 1rem 0; padding: .7rem; border-radius: .5rem;
        border: 1px solid #8888; text-align: center; letter-spacing: .1em;
        font: 600 1.7rem/1.2 ui-monospace, monospace; }
button { box-sizing: border-box; width: 100%; margin: .4rem 0; padding: .8rem; border-radius: .5rem; font: inherit;
         border: 1px solid #1a66c2; background: #1a66c2; color: #fff; cursor: pointer; }
button.second { background: none; color: inherit; border-color: #888; }
.warning { border-left: .25rem solid #c0392b; padding-left: .75rem; }
</style>
</head>
<body>
<main>
<h1>{{ title }}</h1>
{% if text %}<p{% if warning %} class="warning" role="alert"{% endif %}>{{ text }}</p>{% endif %}
{% if login %}
<p>Does your device show this code?</p>
<p class="code">{{ login.user_code }}</p>
<p>It wants to log in as <b>{{ login.client_id }}</b>{% if login.scope %}, for <b>{{ login.scope }}</b>{% endif %}.
If you did not request this, refuse.</p>
<form method="post">
<input type="hidden" name="user_code" value="{{ login.user_code }}">
<button name="decision" value="approve">Approve</button>
<button name="decision" value="refuse" class="second">Refuse</button>
</form>
{% elif ask %}
<form method="get">
<label for="user_code">The code that your device shows</label>
<input class="code" id="user_code" name="user_code" value="{{ typed }}" required autofocus maxlength="32"
 autocomplete="off" autocapitalize="characters" spellcheck="false">
<button>Continue</button>
</form>
{% endif %}
</main>
</body>
</html>
"""

_UNKNOWN = "No device is waiting with this code. It may have expired: start again at the device."


def device_page(logins: DeviceLogins, subject: str) -> Blueprint:
    """Return the page ``/device``: it asks for the user code, unless the URL contains it, and then for the decision.

    Args:
        logins: the logins that wait for a decision.
        subject: the person who decides.
    """
    page = Blueprint("device", __name__)

    @page.get("/device")
    def ask() -> Response:
        typed = request.args.get("user_code", "")
        login = logins.waiting(typed)
        if login is None and typed:
            return _unknown(typed)
        return _show("Approve a device", login=login, ask=True)

    @page.post("/device")
    def decide() -> Response:
        typed, decision = request.form.get("user_code", ""), request.form.get("decision")
        if decision not in ("approve", "refuse"):
            return _show("Nothing decided", 400, text="Approve or refuse: the form contained neither.", warning=True)
        approved = decision == "approve"
        if not logins.decide(typed, approved=approved, subject=subject):
            return _unknown(typed)
        if approved:
            return _show("Approved", text="The device is logging in. You can close this page.")
        return _show("Refused", text="The device was not logged in. You can close this page.")

    return page


def _unknown(typed: str) -> Response:
    return _show("Approve a device", 400, text=_UNKNOWN, warning=True, ask=True, typed=typed)


def _show(title: str, status: int = 200, **content: object) -> Response:
    return make_response(render_template_string(_PAGE, title=title, **content), status, _HEADERS)
