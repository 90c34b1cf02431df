"""The identity providers that ``mqtt-token init`` knows; docs/identity-providers.md says what to switch on in each."""

from __future__ import annotations

from typing import NamedTuple

GRANTS = ("client_credentials", "device_flow")


class Scope(NamedTuple):
    """What to request as scope.

    Attributes:
        text: the scope; an example of it if ``own`` is set.
        own: whether it depends on what somebody has set up at the provider, so that it must be given.
    """

    text: str = ""
    own: bool = False


class Provider(NamedTuple):
    """An identity provider.

    Attributes:
        title: its name.
        issuer: an example of its issuer identifier.
        note: what its tokens contain, or what has to be set up for them.
        scopes: the scope for each grant that it has.
        audience: an example of the parameter ``audience``, if the provider needs it.
    """

    title: str
    issuer: str
    note: str
    scopes: dict[str, Scope]
    audience: str = ""


def _scopes(client_credentials: Scope, device_flow: Scope) -> dict[str, Scope]:
    return dict(zip(GRANTS, (client_credentials, device_flow), strict=True))


_ZITADEL = "openid urn:zitadel:iam:org:project:id:123456789012345678:aud"

PROVIDERS = {
    "keycloak": Provider(
        "Keycloak",
        "https://id.example.com/realms/plant",
        "The token is a JWT. Its audience comes from a mapper of the type Audience.",
        _scopes(Scope(), Scope("openid offline_access")),
    ),
    "hydra": Provider(
        "Ory Hydra",
        "https://id.example.com/",
        "The token is a JWT only with strategies.access_token: jwt.",
        _scopes(Scope("mqtt"), Scope("offline_access mqtt")),
        audience="mqtt",
    ),
    "entra": Provider(
        "Microsoft Entra ID",
        "https://login.microsoftonline.com/00000000-0000-0000-0000-000000000000/v2.0",
        "The token is a JWT. Its aud is the client id of the broker's application.",
        _scopes(Scope("api://mqtt/.default", own=True), Scope("api://mqtt/access offline_access", own=True)),
    ),
    "auth0": Provider(
        "Auth0",
        "https://plant.eu.auth0.com/",
        "The token is a JWT only if an audience is requested.",
        _scopes(Scope(), Scope("offline_access")),
        audience="https://mqtt.example.com",
    ),
    "okta": Provider(
        "Okta",
        "https://plant.okta.com/oauth2/default",
        "The token is a JWT. Its audience is that of the authorization server.",
        _scopes(Scope("mqtt", own=True), Scope("openid offline_access")),
    ),
    "cognito": Provider(
        "Amazon Cognito",
        "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbCdEfGhI",
        "The token is a JWT without aud: a broker checks client_id and scope.",
        {"client_credentials": Scope("mqtt/publish", own=True)},
    ),
    "authentik": Provider(
        "authentik",
        "https://id.example.com/application/o/pumps/",
        "The token is a JWT, if the provider has a signing key. Its aud is client_id.",
        _scopes(Scope(), Scope("offline_access")),
    ),
    "zitadel": Provider(
        "ZITADEL",
        "https://plant.zitadel.cloud",
        "The token is a JWT if the user's or application's token type is JWT.",
        _scopes(Scope(_ZITADEL, own=True), Scope(f"{_ZITADEL} offline_access", own=True)),
    ),
    "other": Provider(
        "another one",
        "https://id.example.com",
        "A broker can check the token only if it is a JWT.",
        _scopes(Scope(), Scope("offline_access")),
    ),
}
