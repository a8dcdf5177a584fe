"""The shadow row: what is kept of a user whom the provider owns. No HTTP."""
