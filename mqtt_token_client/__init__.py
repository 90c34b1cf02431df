"""MQTT with short-lived tokens: obtained, stored, renewed, and the live connection moved onto each new one."""

from .backoff import Backoff
from .client import Stats, TokenClient
from .errors import (
    AuthorizationServerUnavailable,
    AuthorizationServerUntrusted,
    BrokerError,
    BrokerRefused,
    BrokerUnreachable,
    CertificateRejected,
    ClientClosed,
    ConfigurationError,
    DeliveryFailed,
    InvalidTokenResponse,
    IssuerMismatch,
    MqttTokenError,
    OutboxFull,
    ProtocolError,
    TokenError,
    TokenRefusedByBroker,
    TokenRequestRefused,
    TokenUnchanged,
)
from .events import (
    Connected,
    ConnectFailed,
    DeliveryRefused,
    Disconnected,
    Event,
    HandlerFailed,
    MessagesAbandoned,
    RenewalFailed,
    Rotated,
    RotationFailed,
    SessionLost,
    StoreFailed,
    SubscriptionRefused,
    TokenRefused,
    TokenRenewed,
)
from .keeper import RenewalPolicy, TokenKeeper
from .mqtt.messages import Message, Will
from .mqtt.outbox import Delivery
from .profiles import Credentials, Password, Profile
from .sources import TokenSource
from .sources.client_auth import ClientSecretBasic, ClientSecretPost
from .sources.client_credentials import ClientCredentials
from .stores import TokenStore
from .stores.memory import MemoryStore
from .token import Token

__version__ = "0.1.0"

__all__ = [
    "AuthorizationServerUnavailable",
    "AuthorizationServerUntrusted",
    "Backoff",
    "BrokerError",
    "BrokerRefused",
    "BrokerUnreachable",
    "CertificateRejected",
    "ClientClosed",
    "ClientCredentials",
    "ClientSecretBasic",
    "ClientSecretPost",
    "ConfigurationError",
    "ConnectFailed",
    "Connected",
    "Credentials",
    "Delivery",
    "DeliveryFailed",
    "DeliveryRefused",
    "Disconnected",
    "Event",
    "HandlerFailed",
    "InvalidTokenResponse",
    "IssuerMismatch",
    "MemoryStore",
    "Message",
    "MessagesAbandoned",
    "MqttTokenError",
    "OutboxFull",
    "Password",
    "Profile",
    "ProtocolError",
    "RenewalFailed",
    "RenewalPolicy",
    "Rotated",
    "RotationFailed",
    "SessionLost",
    "Stats",
    "StoreFailed",
    "SubscriptionRefused",
    "Token",
    "TokenClient",
    "TokenError",
    "TokenKeeper",
    "TokenRefused",
    "TokenRefusedByBroker",
    "TokenRenewed",
    "TokenRequestRefused",
    "TokenSource",
    "TokenStore",
    "TokenUnchanged",
    "Will",
    "__version__",
]
