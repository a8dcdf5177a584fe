"""The provider as seen from here: its keys, its tokens, what they claim. No HTTP server, no database."""
