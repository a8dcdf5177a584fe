// Better Auth over Drizzle's adapter, and the schema as drizzle-kit writes it: its statements, its journal.

import { createHash } from "node:crypto";
import { createRequire } from "node:module";
import { drizzleAdapter } from "better-auth/adapters/drizzle";
import { admin, jwt, twoFactor } from "better-auth/plugins";
import { drizzle } from "drizzle-orm/node-postgres";
import * as schema from "./drizzle_schema.mjs";

const { generateDrizzleJson, generateMigration } = createRequire(import.meta.url)("drizzle-kit/api");

/** Create the tables, and drizzle.__drizzle_migrations as `drizzle-kit migrate` leaves it. */
export async function push(pool) {
  const statements = await generateMigration(generateDrizzleJson({}), generateDrizzleJson(schema));
  for (const statement of statements) await pool.query(statement);
  await pool.query("CREATE SCHEMA drizzle");
  await pool.query(
    "CREATE TABLE drizzle.__drizzle_migrations (id SERIAL PRIMARY KEY, hash text NOT NULL, created_at bigint)",
  );
  const hash = createHash("sha256").update(statements.join("--> statement-breakpoint\n")).digest("hex");
  await pool.query("INSERT INTO drizzle.__drizzle_migrations (hash, created_at) VALUES ($1, $2)", [hash, Date.now()]);
}

/** The options of a Better Auth over Drizzle. */
export function configure(pool, outbox) {
  const database = drizzleAdapter(drizzle(pool, { schema }), { provider: "pg", schema, usePlural: true });
  return { ...outbox.options, database, plugins: [jwt(), twoFactor(), admin()] };
}

/** Statements that fill the app's tables of drizzle_schema.mjs. */
export const APP_ROWS = [
  "ALTER TABLE users ADD COLUMN plan text DEFAULT 'free' NOT NULL, ADD COLUMN locale text",
  "UPDATE users SET plan = 'pro', locale = 'de-AT' WHERE length(email) % 3 = 0",
  "INSERT INTO posts (author_id, title) SELECT id, 'Post ' || n FROM users, generate_series(1, 2) n",
  `INSERT INTO comments (post_id, parent_id, user_id, body)
     SELECT n, nullif(n - 1, 0), CASE WHEN n % 7 > 0 THEN id END, 'comment'
     FROM (SELECT id, row_number() OVER () AS n FROM users) people`,
  `INSERT INTO invoices (user_id, approved_by, amount)
     SELECT id, CASE WHEN length(email) % 2 = 0 THEN max(id) OVER () END, length(email) * 9.99 FROM users`,
  "INSERT INTO project_members (project_id, user_id) SELECT n, id FROM users, generate_series(1, 2) n",
  "INSERT INTO tasks SELECT row_number() OVER (), project_id, user_id FROM project_members",
  "INSERT INTO profiles SELECT id, NULL, 'bio' FROM users",
  "UPDATE profiles SET manager_id = (SELECT min(id) FROM users) WHERE user_id <> (SELECT min(id) FROM users)",
  "INSERT INTO audit_logs (actor_id, action) SELECT id, 'signed up' FROM users",
  // Drizzle knows no deferrable keys; people add them by hand.
  "CREATE TABLE seats (id serial PRIMARY KEY, user_id text UNIQUE REFERENCES users (id) DEFERRABLE INITIALLY DEFERRED)",
  "INSERT INTO seats (user_id) SELECT id FROM users",
];
