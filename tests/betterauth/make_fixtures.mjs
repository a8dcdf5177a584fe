// Make a database with a real Better Auth and keep it as a fixture:
//   DATABASE_URL=... node make_fixtures.mjs LAYOUT [FOLDER]
// The database must be empty. Writes FOLDER/LAYOUT.sql (with $PG_DUMP or pg_dump) and FOLDER/LAYOUT.creds.json.

import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import pg from "pg";
import { appTables } from "./app_tables.mjs";
import { Outbox, fill } from "./fill.mjs";
import { layouts, load } from "./layouts.mjs";

process.env.TZ = "UTC"; // Columns without a time zone hold UTC.
const [name, folder = "../fixtures"] = process.argv.slice(2);
const layout = layouts[name];
if (!(layout?.app ?? layout?.tables) || !process.env.DATABASE_URL) {
  const names = Object.keys(layouts).filter((name) => layouts[name].app ?? layouts[name].tables);
  console.error(`DATABASE_URL=... node make_fixtures.mjs ${names.join("|")} [FOLDER]`);
  process.exit(2);
}

const pool = new pg.Pool({
  connectionString: process.env.DATABASE_URL,
  options: `-c search_path=${layout.searchPath ?? "public"} -c timezone=UTC`,
});
for (const schema of [layout.searchPath, layout.app?.schema]) {
  if (schema) await pool.query(`CREATE SCHEMA ${schema}`);
}

const { betterAuth } = await load(layout);
const outbox = new Outbox();
const tables = layout.tables ? await import(layout.tables) : {};

// Drizzle is configured by its own tables; the field maps of the layout are for the old app. And a plugin that is made
// with a map keeps it for the next one made without: never make both in one process.
const options = tables.configure?.(pool, outbox) ?? {
  database: pool,
  ...outbox.options,
  ...layout.options,
  plugins: await layout.plugins(await load(layout, "/plugins"), outbox),
};
if (tables.push) await tables.push(pool);
else {
  const { getMigrations } = await load(layout, layout.version === "1.7" ? "/db/migration" : "/db");
  await (await getMigrations(options)).runMigrations();
}

const auth = betterAuth(options);
const credentials = await fill(auth, outbox);
if (layout.fillToo) await (await import(layout.fillToo)).fill(auth, outbox, credentials);
for (const statement of tables.APP_ROWS ?? appTables(layout.app)) await pool.query(statement);
await pool.end();

const dump = execFileSync(process.env.PG_DUMP ?? "pg_dump", ["--no-owner", process.env.DATABASE_URL], {
  maxBuffer: 2 ** 26,
});
writeFileSync(`${folder}/${name}.sql`, dump);
writeFileSync(`${folder}/${name}.creds.json`, `${JSON.stringify(credentials, null, 1)}\n`);
console.log(`${name}: ${dump.length} bytes, ${credentials.users.length} people with a password`);
