"""MQTT with short-lived tokens: obtained, stored, renewed, and the live connection moved onto each new one.

A name is loaded when it is first used: who wants tokens without MQTT loads no MQTT client, and a client with one kind
of source none of the others.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .aio.client import (
        AsyncTokenClient as AsyncTokenClient,
    )
    from .backoff import (
        Backoff as Backoff,
    )
    from .client import (
        TokenClient as TokenClient,
    )
    from .errors import (
        AuthorizationServerUnavailable as AuthorizationServerUnavailable,
        AuthorizationServerUntrusted as AuthorizationServerUntrusted,
        BrokerError as BrokerError,
        BrokerRefused as BrokerRefused,
        BrokerUnreachable as BrokerUnreachable,
        CertificateRejected as CertificateRejected,
        ClientClosed as ClientClosed,
        ConfigurationError as ConfigurationError,
        DeliveryFailed as DeliveryFailed,
        InvalidTokenResponse as InvalidTokenResponse,
        IssuerMismatch as IssuerMismatch,
        JournalError as JournalError,
        JournalLocked as JournalLocked,
        MqttTokenError as MqttTokenError,
        OutboxFull as OutboxFull,
        ProtocolError as ProtocolError,
        StoreError as StoreError,
        StoreKeyMissing as StoreKeyMissing,
        StoreLocked as StoreLocked,
        TokenError as TokenError,
        TokenRefusedByBroker as TokenRefusedByBroker,
        TokenRequestRefused as TokenRequestRefused,
        TokenUnchanged as TokenUnchanged,
    )
    from .events import (
        Connected as Connected,
        ConnectFailed as ConnectFailed,
        DeliveryRefused as DeliveryRefused,
        Disconnected as Disconnected,
        Event as Event,
        HandlerFailed as HandlerFailed,
        LoginRequired as LoginRequired,
        MessageExpired as MessageExpired,
        MessageRejected as MessageRejected,
        MessagesAbandoned as MessagesAbandoned,
        MessagesDropped as MessagesDropped,
        MessageUnhandled as MessageUnhandled,
        RenewalFailed as RenewalFailed,
        Rotated as Rotated,
        RotationFailed as RotationFailed,
        ScopeReduced as ScopeReduced,
        SessionLost as SessionLost,
        StoreFailed as StoreFailed,
        SubscriptionRefused as SubscriptionRefused,
        TlsFilesFailed as TlsFilesFailed,
        TokenRefused as TokenRefused,
        TokenRenewed as TokenRenewed,
        UnsubscriptionRefused as UnsubscriptionRefused,
    )
    from .journal.disk import (
        open_journal as open_journal,
    )
    from .mqtt.codec.message import (
        Message as Message,
    )
    from .mqtt.codec.will import (
        Will as Will,
    )
    from .mqtt.session.delivery import (
        Delivery as Delivery,
    )
    from .mqtt.session.journal_events import (
        JournalFailed as JournalFailed,
        JournalFull as JournalFull,
        JournalRecovered as JournalRecovered,
        Resumed as Resumed,
    )
    from .mqtt.session.quota import (
        QuotaExceeded as QuotaExceeded,
    )
    from .mqtt.session.reports import (
        Stats as Stats,
    )
    from .profiles.aws_iot import (
        AwsIot as AwsIot,
    )
    from .profiles.bearer_header import (
        BearerHeader as BearerHeader,
    )
    from .profiles.clearblade import (
        ClearBlade as ClearBlade,
    )
    from .profiles.credentials import (
        Credentials as Credentials,
        Profile as Profile,
    )
    from .profiles.enhanced import (
        EventGrid as EventGrid,
        IoTOperations as IoTOperations,
    )
    from .profiles.password import (
        Password as Password,
    )
    from .profiles.rabbitmq import (
        RabbitMQ as RabbitMQ,
    )
    from .profiles.solace import (
        Solace as Solace,
    )
    from .profiles.username import (
        Username as Username,
    )
    from .sources import (
        AsyncTokenSource as AsyncTokenSource,
        TokenSource as TokenSource,
    )
    from .sources.oauth.assertion_file import (
        ClientAssertionFile as ClientAssertionFile,
    )
    from .sources.oauth.client_assertion import (
        ClientSecretJWT as ClientSecretJWT,
        PrivateKeyJWT as PrivateKeyJWT,
    )
    from .sources.oauth.client_auth import (
        ClientSecretBasic as ClientSecretBasic,
        ClientSecretPost as ClientSecretPost,
        PublicClient as PublicClient,
    )
    from .sources.oauth.client_credentials import (
        ClientCredentials as ClientCredentials,
    )
    from .sources.oauth.device_flow import (
        DeviceFlow as DeviceFlow,
    )
    from .sources.oauth.device_login import (
        DeviceLogin as DeviceLogin,
    )
    from .sources.oauth.mutual_tls import (
        MutualTLS as MutualTLS,
    )
    from .sources.signed_jwt import (
        SignedJWT as SignedJWT,
    )
    from .sources.token_file import (
        TokenFile as TokenFile,
    )
    from .stores import (
        TokenStore as TokenStore,
    )
    from .stores.file import (
        FileStore as FileStore,
    )
    from .stores.keyring import (
        KeyringStore as KeyringStore,
    )
    from .stores.memory import (
        MemoryStore as MemoryStore,
    )
    from .stores.opening import (
        open_store as open_store,
    )
    from .tls_files import (
        TlsFiles as TlsFiles,
    )
    from .token import (
        Token as Token,
    )
    from .tokens.keeper import (
        RenewalPolicy as RenewalPolicy,
        TokenKeeper as TokenKeeper,
    )

__version__ = "0.1.0"

_NAMES = {
    "aio.client": "AsyncTokenClient",
    "backoff": "Backoff",
    "client": "TokenClient",
    "errors": """
        AuthorizationServerUnavailable AuthorizationServerUntrusted BrokerError BrokerRefused
        BrokerUnreachable CertificateRejected ClientClosed ConfigurationError DeliveryFailed
        InvalidTokenResponse IssuerMismatch JournalError JournalLocked MqttTokenError OutboxFull ProtocolError
        StoreError StoreKeyMissing StoreLocked TokenError TokenRefusedByBroker TokenRequestRefused
        TokenUnchanged
    """,
    "events": """
        Connected ConnectFailed DeliveryRefused Disconnected Event HandlerFailed LoginRequired MessageExpired
        MessageRejected MessageUnhandled MessagesAbandoned MessagesDropped RenewalFailed Rotated
        RotationFailed ScopeReduced SessionLost StoreFailed SubscriptionRefused TlsFilesFailed TokenRefused
        TokenRenewed UnsubscriptionRefused
    """,
    "tokens.keeper": "RenewalPolicy TokenKeeper",
    "journal.disk": "open_journal",
    "mqtt.codec.message": "Message",
    "mqtt.codec.will": "Will",
    "mqtt.session.delivery": "Delivery",
    "mqtt.session.journal_events": "JournalFailed JournalFull JournalRecovered Resumed",
    "mqtt.session.quota": "QuotaExceeded",
    "mqtt.session.reports": "Stats",
    "profiles.aws_iot": "AwsIot",
    "profiles.bearer_header": "BearerHeader",
    "profiles.clearblade": "ClearBlade",
    "profiles.credentials": "Credentials Profile",
    "profiles.enhanced": "EventGrid IoTOperations",
    "profiles.password": "Password",
    "profiles.rabbitmq": "RabbitMQ",
    "profiles.solace": "Solace",
    "profiles.username": "Username",
    "sources": "AsyncTokenSource TokenSource",
    "sources.oauth.assertion_file": "ClientAssertionFile",
    "sources.oauth.client_assertion": "ClientSecretJWT PrivateKeyJWT",
    "sources.oauth.client_auth": "ClientSecretBasic ClientSecretPost PublicClient",
    "sources.oauth.client_credentials": "ClientCredentials",
    "sources.oauth.device_flow": "DeviceFlow",
    "sources.oauth.device_login": "DeviceLogin",
    "sources.oauth.mutual_tls": "MutualTLS",
    "sources.signed_jwt": "SignedJWT",
    "sources.token_file": "TokenFile",
    "stores": "TokenStore",
    "stores.file": "FileStore",
    "stores.keyring": "KeyringStore",
    "stores.memory": "MemoryStore",
    "stores.opening": "open_store",
    "tls_files": "TlsFiles",
    "token": "Token",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = ["__version__", *_HOMES]


if not TYPE_CHECKING:  # or a checker would take any name for one of ours

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
