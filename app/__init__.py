"""A shadow-user resource server and the cutover from a Better Auth database that gets you there."""
