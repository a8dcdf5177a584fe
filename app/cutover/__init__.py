"""The cutover: from a Better Auth database to the shadow schema, and back. Knows nothing of the server."""
