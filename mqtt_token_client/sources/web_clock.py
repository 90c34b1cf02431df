"""WebClock: the time of day of a web server, for a device whose own clock may be wrong."""

from __future__ import annotations

import math

from ..clock import CLOCK_IS_SET, ServerClock
from ..errors import ConfigurationError, MqttTokenError, TokenError
from ..logs import get_logger
from .oauth.http import HttpClient, url_problem

_log = get_logger("mqtt_token_client.sources")


class WebClock:
    """The time of day that a web server's answers have in their ``Date`` header (RFC 9110 section 6.6.1).

    A device without a clock chip needs a plain http URL, as no certificate is valid until its clock is right; so plain
    http is allowed here to any machine. Nothing secret is sent there. A router may answer instead of the server, with
    its own time or none: a time before this library was made is ignored.

    Args:
        url: of any page of the server.

    Attributes:
        clock: the time of day; this device's until the server has shown it.

    Raises:
        ConfigurationError: it is not an http or https URL.
    """

    def __init__(self, url: str) -> None:
        problem = url_problem(url, allow_insecure=True)
        if problem:
            raise ConfigurationError(f"time_from {problem}")
        self._url = url
        self._http = HttpClient(timeout=(5.0, 5.0))
        # A cache that answers although it is asked not to is a website's own, and mostly has the time itself.
        self.clock = self._http.clock = ServerClock(CLOCK_IS_SET, max_age=math.inf)

    def ask(self) -> MqttTokenError | None:
        """Ask the server for the time; returns the error if it did not answer, or has never shown a time. An error of
        HTTP may have shown one. Blocks for 10 seconds at most.
        """
        problem: MqttTokenError | None = None
        try:
            # Not from a cache, whose Date would be that of an earlier request.
            reply = self._http.send("HEAD", self._url, headers={"Cache-Control": "no-cache"})
        except MqttTokenError as error:
            problem = error
        else:
            if not self.clock.known:
                problem = TokenError(f"{reply.url}: the answer has no Date that could be the time")
        if problem is not None:
            _log.info("time_from: %s", problem)
        return problem
