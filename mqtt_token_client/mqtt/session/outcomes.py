"""What a rejection of a PUBLISH leads to: each code from 0x80 on of PUBACK, PUBREC and PUBCOMP (MQTT 5).

The codes below are successes (section 2.4): after PUBACK and PUBCOMP the message is delivered, and PUBREC is answered
by PUBREL. PUBREL from the broker is answered by PUBCOMP whether its code is 0x00 or 0x92 (section 3.6.2.1).
"""

from __future__ import annotations

from enum import Enum, auto

from ..codec.packets import PUBACK, PUBCOMP, PUBREC


class Outcome(Enum):
    """What becomes of a message, and of its packet identifier."""

    DELIVERED = auto()  # its Delivery succeeds, and the identifier is free
    RELEASE = auto()  # the broker has it: PUBREL goes out, and PUBCOMP is awaited
    REJECTED = auto()  # its Delivery fails, and the identifier is free
    IN_USE = auto()  # the broker uses the identifier for another message: it is sent again with a free one
    DELAYED = auto()  # it is sent again after a while, with the same identifier


_D, _R, _X, _U, _L = Outcome

# 0x91 for a PUBLISH that is sent again is against section 4.3.3, where only PUBREC with Success is possible, but EMQX
# sends it: the message arrived on the connection before. For one that is sent for the first time, an earlier exchange
# with that identifier is not finished at the broker. PUBREL finishes it.
# fmt: off
_OUTCOMES: dict[int, tuple[Outcome, Outcome, Outcome, Outcome]] = {
    #                                     PUBACK    PUBREC                   PUBCOMP
    #                                               sent once  sent again
    #                             section 3.4.2.1   3.5.2.1    4.3.3, 4.4    3.7.2.1
    0x80: (  # Unspecified error
                                          _X,       _X,        _X,           _D),
    0x83: (  # Implementation specific error
                                          _X,       _X,        _X,           _D),
    0x87: (  # Not authorized; if the token has expired, Session.denied() is asked before
                                          _X,       _X,        _X,           _D),
    0x90: (  # Topic Name invalid
                                          _X,       _X,        _X,           _D),
    0x91: (  # Packet Identifier in use
                                          _U,       _U,        _R,           _D),
    0x92: (  # Packet Identifier not found: normal after a lost connection (section 3.7.2.1)
                                          _X,       _X,        _X,           _D),
    0x93: (  # Receive Maximum exceeded: not a code of these packets, but EMQX sends it in PUBREC
                                          _L,       _L,        _L,           _D),
    0x96: (  # Message rate too high: not a code of these packets either, but it says the same
                                          _L,       _L,        _L,           _D),
    0x97: (  # Quota exceeded: a limit of the broker that is another one later, as a rate
                                          _L,       _L,        _L,           _D),
    0x99: (  # Payload format invalid
                                          _X,       _X,        _X,           _D),
}
# fmt: on


def outcome(kind: int, reason: int, *, repeated: bool) -> Outcome:
    """Return what a rejection of a PUBLISH leads to.

    Args:
        kind: PUBACK, PUBREC or PUBCOMP.
        reason: its reason code, 0x80 at least. One that MQTT does not have there counts as 0x80 (section 2.4).
        repeated: whether PUBLISH was sent on an earlier connection, or PUBREC was received before.
    """
    puback, once, again, pubcomp = _OUTCOMES.get(reason, _OUTCOMES[0x80])
    if kind == PUBREC:
        return again if repeated else once
    assert kind in (PUBACK, PUBCOMP)
    return puback if kind == PUBACK else pubcomp
