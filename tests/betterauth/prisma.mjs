// The tables as Prisma makes them: prisma_schema.sql is what Prisma 7.10's schema engine answers to "from nothing to
// prisma_schema.prisma". Rows are written by Better Auth's own queries, for Prisma's client needs a build step.

import { createHash, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";

/** Create the tables, and _prisma_migrations as `prisma migrate deploy` leaves it. */
export async function push(pool) {
  const script = readFileSync(new URL("prisma_schema.sql", import.meta.url), "utf8");
  await pool.query(script);
  await pool.query(`CREATE TABLE "_prisma_migrations" (
    "id" VARCHAR(36) PRIMARY KEY NOT NULL, "checksum" VARCHAR(64) NOT NULL, "finished_at" TIMESTAMPTZ,
    "migration_name" VARCHAR(255) NOT NULL, "logs" TEXT, "rolled_back_at" TIMESTAMPTZ,
    "started_at" TIMESTAMPTZ NOT NULL DEFAULT now(), "applied_steps_count" INTEGER NOT NULL DEFAULT 0)`);
  const checksum = createHash("sha256").update(script).digest("hex");
  await pool.query(
    `INSERT INTO "_prisma_migrations" (id, checksum, finished_at, migration_name, applied_steps_count)
     VALUES ($1, $2, now(), '20260104120000_init', 1)`,
    [randomUUID(), checksum],
  );
}

/** Statements that fill the app's tables of prisma_schema.prisma. */
export const APP_ROWS = [
  `UPDATE "user" SET plan = 'PRO', locale = 'de-AT' WHERE length(email) % 3 = 0`,
  `UPDATE "user" SET "invitedById" = (SELECT min(id) FROM "user") WHERE id <> (SELECT min(id) FROM "user")`,
  `INSERT INTO "Post" ("authorId", title) SELECT id, 'Post ' || n FROM "user", generate_series(1, 2) n`,
  `INSERT INTO "Comment" ("postId", "userId", body)
     SELECT n, CASE WHEN n % 7 > 0 THEN id END, 'comment'
     FROM (SELECT id, row_number() OVER () AS n FROM "user") people`,
  `INSERT INTO "Invoice" ("userId", "approvedById", amount)
     SELECT id, CASE WHEN length(email) % 2 = 0 THEN max(id) OVER () END, length(email) * 9.99 FROM "user"`,
  `INSERT INTO "Project" (title) VALUES ('one'), ('two')`,
  `INSERT INTO "_ProjectToUser" SELECT n, id FROM "user", generate_series(1, 2) n`,
  `INSERT INTO "Profile" SELECT id FROM "user"`,
  `UPDATE "Profile" SET "managerId" = (SELECT min(id) FROM "user") WHERE "userId" <> (SELECT min(id) FROM "user")`,
  `INSERT INTO audit_log ("actorId", action) SELECT id, 'signed up' FROM "user"`,
];
