"""What outlives a connection: messages, packet identifiers, subscriptions."""
