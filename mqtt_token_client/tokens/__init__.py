"""The current token: held, renewed in time, and handed to connections."""
