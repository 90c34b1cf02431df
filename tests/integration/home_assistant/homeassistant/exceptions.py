"""What a set-up raises."""


class ConfigEntryNotReady(Exception):
    """Try again later."""


class ConfigEntryAuthFailed(Exception):
    """A person has to log in."""
