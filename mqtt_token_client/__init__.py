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
    StoreError,
    StoreLocked,
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
    LoginRequired,
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
from .mqtt.message import Message
from .mqtt.messages import Will
from .mqtt.outbox import Delivery
from .profiles import (
    AwsIot,
    BearerHeader,
    ClearBlade,
    Credentials,
    EventGrid,
    IoTOperations,
    Password,
    Profile,
    RabbitMQ,
    Solace,
    Username,
)
from .sources import TokenSource
from .sources.client_assertion import ClientSecretJWT, PrivateKeyJWT
from .sources.client_auth import ClientSecretBasic, ClientSecretPost, PublicClient
from .sources.client_credentials import ClientCredentials
from .sources.device_flow import DeviceFlow
from .sources.device_login import DeviceLogin
from .sources.mutual_tls import MutualTLS
from .sources.signed_jwt import SignedJWT
from .sources.token_file import TokenFile
from .stores import TokenStore
from .stores.file import FileStore
from .stores.keyring import KeyringStore
from .stores.memory import MemoryStore
from .stores.opening import open_store
from .token import Token

__version__ = "0.1.0"

__all__ = [
    "AuthorizationServerUnavailable",
    "AuthorizationServerUntrusted",
    "AwsIot",
    "Backoff",
    "BearerHeader",
    "BrokerError",
    "BrokerRefused",
    "BrokerUnreachable",
    "CertificateRejected",
    "ClearBlade",
    "ClientClosed",
    "ClientCredentials",
    "ClientSecretBasic",
    "ClientSecretJWT",
    "ClientSecretPost",
    "ConfigurationError",
    "ConnectFailed",
    "Connected",
    "Credentials",
    "Delivery",
    "DeliveryFailed",
    "DeliveryRefused",
    "DeviceFlow",
    "DeviceLogin",
    "Disconnected",
    "Event",
    "EventGrid",
    "FileStore",
    "HandlerFailed",
    "InvalidTokenResponse",
    "IoTOperations",
    "IssuerMismatch",
    "KeyringStore",
    "LoginRequired",
    "MemoryStore",
    "Message",
    "MessagesAbandoned",
    "MqttTokenError",
    "MutualTLS",
    "OutboxFull",
    "Password",
    "PrivateKeyJWT",
    "Profile",
    "ProtocolError",
    "PublicClient",
    "RabbitMQ",
    "RenewalFailed",
    "RenewalPolicy",
    "Rotated",
    "RotationFailed",
    "SessionLost",
    "SignedJWT",
    "Solace",
    "Stats",
    "StoreError",
    "StoreFailed",
    "StoreLocked",
    "SubscriptionRefused",
    "Token",
    "TokenClient",
    "TokenError",
    "TokenFile",
    "TokenKeeper",
    "TokenRefused",
    "TokenRefusedByBroker",
    "TokenRenewed",
    "TokenRequestRefused",
    "TokenSource",
    "TokenStore",
    "TokenUnchanged",
    "Username",
    "Will",
    "__version__",
    "open_store",
]
