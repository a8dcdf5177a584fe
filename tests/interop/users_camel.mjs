// The old app of one layout more, of which no fixture is kept: Better Auth's own names, but the table is called users.

import { layouts } from "../betterauth/layouts.mjs";

layouts.users_camel = { ...layouts.kysely_singular, options: { user: { modelName: "users" } } };
await import("../betterauth/oldapp.mjs");
