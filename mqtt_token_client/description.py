"""Events in plain words, for people who watch a device."""

from __future__ import annotations

from .events import (
    Connected,
    ConnectFailed,
    Disconnected,
    Event,
    MessageRejected,
    RenewalFailed,
    Rotated,
    RotationFailed,
    SessionLost,
    TokenRefused,
    TokenRenewed,
)
from .mqtt.codec import reason_codes


def describe(event: Event) -> str:
    """Describe an event in plain words."""
    match event:
        case TokenRenewed(expires_in=expires_in, jti=jti):
            return f"new token {short(jti)}, valid for {expires_in:.1f} s"
        case Rotated(kind=kind, gap=gap):
            return f"moved onto the new token by {kind}, gap {milliseconds(gap)}"
        case Connected(broker=broker, session_present=session_present):
            return f"connected to {broker}" + (", session present" if session_present else "")
        case Disconnected(cause=cause, retry_in=retry_in):
            return f"connection lost: {cause}; next attempt in {retry_in:.1f} s"
        case TokenRefused(reason_name=reason_name, retry_in=retry_in):
            return f"the broker rejected the token: {reason_name}; next attempt in {retry_in:.1f} s"
        case RenewalFailed(error=error, retry_in=retry_in):
            return f"token renewal failed: {error}; next attempt in {retry_in:.1f} s"
        case RotationFailed(error=error, retry_in=retry_in) | ConnectFailed(error=error, retry_in=retry_in):
            return f"connecting failed: {error}; next attempt in {retry_in:.1f} s"
        case MessageRejected(topic=topic, reason=reason, size=size, violation=violation):
            return (
                f"a message of {size} bytes on {topic!r} was rejected: {violation or reason_codes.reason_name(reason)}"
            )
        case SessionLost(resent=resent):
            return f"the broker had lost the session; sent {resent} messages again"
    return str(event)


def short(jti: str | None) -> str:
    """Return the last characters of a token's identifier."""
    return f"…{jti[-6:]}" if jti else "(no jti)"


def milliseconds(seconds: float) -> str:
    """Format seconds as milliseconds."""
    return f"{seconds * 1000:.1f} ms"
