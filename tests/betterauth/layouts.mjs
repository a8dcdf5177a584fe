// Every layout: which Better Auth makes it, with which plugins and options, and how the app beside it spells its
// tables.
// The old app (oldapp.mjs) is configured from the same records, so that it queries what the fixture has.

import bcrypt from "bcryptjs";
import { randomBytes } from "node:crypto";
import { verifyPassword } from "better-auth/crypto";

export const SECRET = "test-only-secret-0123456789abcdef0123456789abcdef";

const PACKAGES = { "1.3": "better-auth-1.3", "1.4": "better-auth-1.4", "1.7": "better-auth" };

/** Import `part` ("", "/plugins", "/db" ...) of the Better Auth that a layout is made with. */
export const load = (layout, part = "") => import(PACKAGES[layout.version] + part);

const usual = (plugins) => [plugins.jwt(), plugins.twoFactor(), plugins.admin()];

const snakes = (names) =>
  Object.fromEntries(names.map((name) => [name, name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`)]));
const STAMPS = ["createdAt", "updatedAt"];
const SNAKE_CORE = {
  user: { modelName: "users", fields: snakes(["emailVerified", ...STAMPS]) },
  session: { modelName: "sessions", fields: snakes(["userId", "expiresAt", "ipAddress", "userAgent", ...STAMPS]) },
  account: {
    modelName: "accounts",
    fields: snakes([
      "userId",
      "accountId",
      "providerId",
      "accessToken",
      "refreshToken",
      "idToken",
      "accessTokenExpiresAt",
      "refreshTokenExpiresAt",
      ...STAMPS,
    ]),
  },
  verification: { modelName: "verifications", fields: snakes(["expiresAt", ...STAMPS]) },
};
const snakeJwt = (modelName) => ({
  schema: { jwks: { modelName, fields: snakes(["publicKey", "privateKey", "createdAt", "expiresAt"]) } },
});
const SNAKE_TWO_FACTOR = {
  schema: {
    user: { fields: { twoFactorEnabled: "two_factor_enabled" } },
    twoFactor: {
      modelName: "two_factors",
      fields: snakes(["userId", "backupCodes", "failedVerificationCount", "lockedUntil"]),
    },
  },
};
const SNAKE_ADMIN = {
  schema: { user: { fields: snakes(["banReason", "banExpires"]) }, session: { fields: snakes(["impersonatedBy"]) } },
};

const PREFIXES = { user: "usr", session: "ses", account: "acc", verification: "ver", twoFactor: "tfa" };
const random = (length) => Array.from(randomBytes(length), (byte) => (byte % 36).toString(36)).join("");

/** bcrypt since the app's own first sign-in, Better Auth's scrypt since then. */
const verifyEither = ({ hash, password }) =>
  hash.startsWith("$2") ? bcrypt.compare(password, hash) : verifyPassword({ hash, password });

export const layouts = {
  // Three databases that were there before: their old apps only, no `app` to make them again.
  kysely_singular: {
    version: "1.7",
    plugins: (plugins) => [...usual(plugins), plugins.organization({ teams: { enabled: true } })],
    options: {},
  },
  plural_snake: {
    version: "1.7",
    plugins: (plugins) => [plugins.jwt(snakeJwt("jwks")), plugins.twoFactor(SNAKE_TWO_FACTOR)],
    options: {
      ...SNAKE_CORE,
      advanced: { database: { generateId: ({ model }) => `${PREFIXES[model] ?? model}_${random(24)}` } },
    },
  },
  soft_delete_singular: {
    version: "1.7",
    plugins: () => [],
    options: {
      emailAndPassword: {
        enabled: true,
        password: { hash: (password) => bcrypt.hash(password, 8), verify: verifyEither },
      },
    },
  },

  number_ids: {
    version: "1.7",
    plugins: usual,
    options: {
      advanced: { database: { generateId: "serial" } },
      rateLimit: { enabled: true, storage: "database", window: 60, max: 1000 },
    },
    app: { users: 'public."user"', key: "integer", extras: ["invitedBy", "cycle", "composite", "partitions"] },
  },
  number_ids_13: {
    version: "1.3",
    plugins: usual,
    options: { advanced: { database: { useNumberId: true } } },
    app: { users: 'public."user"', key: "integer", extras: ["invitedBy"] },
  },
  uuid_kysely: {
    version: "1.7",
    plugins: usual,
    options: { advanced: { database: { generateId: "uuid" } } },
    app: { users: 'public."user"', key: "uuid", extras: ["invitedBy", "cycle", "composite", "partitions"] },
  },
  drizzle_plural: {
    version: "1.7",
    tables: "./drizzle.mjs",
    // What the old app needs to find Drizzle's names with Better Auth's own queries.
    plugins: (plugins) => [
      plugins.jwt(snakeJwt("jwkss")),
      plugins.twoFactor(SNAKE_TWO_FACTOR),
      plugins.admin(SNAKE_ADMIN),
    ],
    options: SNAKE_CORE,
  },
  renamed_schema: {
    version: "1.7",
    searchPath: "identity",
    plugins: (plugins) => [
      plugins.jwt({
        schema: {
          jwks: {
            modelName: "signing_keys",
            fields: {
              publicKey: "public_half",
              privateKey: "private_half",
              createdAt: "made_on",
              expiresAt: "retired_on",
              alg: "algorithm",
              crv: "curve",
            },
          },
        },
      }),
      plugins.twoFactor({
        schema: {
          user: { fields: { twoFactorEnabled: "asks_second_factor" } },
          twoFactor: {
            modelName: "second_factors",
            fields: {
              userId: "person",
              secret: "seed",
              backupCodes: "spare_codes",
              verified: "proven",
              failedVerificationCount: "wrong_guesses",
              lockedUntil: "shut_until",
            },
          },
        },
      }),
      plugins.admin({
        schema: {
          user: {
            fields: { role: "duty", banned: "shut_out", banReason: "shut_out_why", banExpires: "shut_out_until" },
          },
          session: { fields: { impersonatedBy: "acted_by" } },
        },
      }),
    ],
    options: {
      user: {
        modelName: "people",
        fields: {
          name: "full_name",
          email: "email_address",
          emailVerified: "email_confirmed",
          image: "avatar",
          createdAt: "joined_on",
          updatedAt: "changed_on",
        },
      },
      session: {
        modelName: "logins",
        fields: {
          userId: "person",
          token: "secret_token",
          expiresAt: "valid_until",
          ipAddress: "came_from",
          userAgent: "browser",
          createdAt: "began_on",
          updatedAt: "seen_on",
        },
      },
      account: {
        modelName: "credentials",
        fields: {
          userId: "person",
          accountId: "id_there",
          providerId: "provider",
          accessToken: "access_secret",
          refreshToken: "renewal_secret",
          idToken: "identity_document",
          accessTokenExpiresAt: "access_until",
          refreshTokenExpiresAt: "renewal_until",
          scope: "grants",
          password: "password_hash",
          createdAt: "linked_on",
          updatedAt: "changed_on",
        },
      },
      verification: {
        modelName: "proofs",
        fields: {
          identifier: "subject",
          value: "content",
          expiresAt: "valid_until",
          createdAt: "issued_on",
          updatedAt: "changed_on",
        },
      },
      rateLimit: {
        enabled: true,
        storage: "database",
        window: 60,
        max: 1000,
        modelName: "throttle",
        fields: { key: "who", count: "times", lastRequest: "last_time" },
      },
    },
    app: { users: "identity.people", key: "text", email: "email_address", style: "snake", schema: "shop" },
  },
  mixed: {
    version: "1.7",
    plugins: (plugins) => [...usual(plugins), plugins.organization()],
    options: {
      user: { modelName: "members", fields: { emailVerified: "email_verified" } },
      session: { fields: { userId: "user_id" } },
      account: { modelName: "accounts", fields: { userId: "user_id", providerId: "provider" } },
    },
    app: { users: "public.members", key: "text", extras: ["invitedBy"] },
  },
  prisma_like: { version: "1.7", tables: "./prisma.mjs", plugins: usual, options: {} },
  ba_13: { version: "1.3", plugins: usual, options: {}, app: { users: 'public."user"', key: "text" } },
  ba_14: { version: "1.4", plugins: usual, options: {}, app: { users: 'public."user"', key: "text" } },
  plugins_17: {
    version: "1.7",
    plugins: everyPlugin,
    fillToo: "./fill_plugins.mjs",
    options: { rateLimit: { enabled: true, storage: "database", window: 60, max: 1000 } },
    app: { users: 'public."user"', key: "text", extras: ["invitedBy"] },
  },
};

/** All of 1.7's plugins that leave a table or a column behind. */
async function everyPlugin(plugins, outbox) {
  const [{ passkey }, { apiKey }, { oauthProvider }, { sso }, { scim }] = await Promise.all(
    ["passkey", "api-key", "oauth-provider", "sso", "scim"].map((name) => import(`@better-auth/${name}`)),
  );
  const { defaultAc: ac } = await import("better-auth/plugins/organization/access");
  return [
    plugins.jwt(),
    plugins.twoFactor(),
    plugins.admin(),
    plugins.username(),
    plugins.phoneNumber({ sendOTP: ({ phoneNumber, code }) => outbox.keep("phone", phoneNumber, code) }),
    plugins.anonymous(),
    plugins.lastLoginMethod({ storeInDatabase: true }),
    plugins.organization({ ac, teams: { enabled: true }, dynamicAccessControl: { enabled: true } }),
    plugins.deviceAuthorization({ verificationUri: "https://auth.example.com/device", validateClient: () => true }),
    plugins.siwe({ domain: "example.com", getNonce: async () => "AnUnusedNonce1234", verifyMessage: async () => true }),
    plugins.magicLink({ sendMagicLink: ({ email, token }) => outbox.keep("link", email, token) }),
    plugins.emailOTP({ sendVerificationOTP: async ({ email, otp }) => outbox.keep("otp", email, otp) }),
    passkey(),
    apiKey(),
    oauthProvider({
      loginPage: "/sign-in",
      consentPage: "/consent",
      silenceWarnings: { oauthAuthServerConfig: true, openidConfig: true },
    }),
    sso(),
    scim({ connections: [{ id: "acme", credentials: [{ id: "first", token: "scim-token-0123456789abcdef" }] }] }),
  ];
}
