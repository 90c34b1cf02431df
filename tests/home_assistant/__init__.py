"""The example for Home Assistant, in the real one; run by `nox -s home_assistant`."""
