// A provider with users to read back: the Better Auth of a layout with its admin plugin, over HTTP on loopback:
//   DATABASE_URL=... node directory.mjs LAYOUT
// It answers one JSON object a line with one JSON object a line, and ends when its input does:
//   {"do": "serve"}            ->  {"ok": true, "url"}
//   {"do": "break", "what"}    ->  {"ok": true}: from now on queries over all users fail ("list"), or none ("nothing")
// The first line, {"ok": true, "layout"}, says that it is there.

import { createServer } from "node:http";
import { createInterface } from "node:readline";
import pg from "pg";
import { SECRET, layouts, load } from "./layouts.mjs";

process.env.TZ = "UTC"; // Columns without a time zone hold UTC.
const name = process.argv[2];
const layout = layouts[name];
if (!layout || !process.env.DATABASE_URL) {
  console.error(`DATABASE_URL=... node directory.mjs ${Object.keys(layouts).join("|")}`);
  process.exit(2);
}

let broken = "nothing";
const pool = new pg.Pool({
  connectionString: process.env.DATABASE_URL,
  options: `-c search_path=${layout.searchPath ?? "public"} -c timezone=UTC`,
});
pool.on("connect", (client) => {
  const query = client.query.bind(client);
  client.query = (sql, ...rest) =>
    broken === "list" && /^select (?!.* where )/is.test(sql)
      ? Promise.reject(new Error("canceling statement due to statement timeout"))
      : query(sql, ...rest);
});

const [{ betterAuth }, { toNodeHandler }, plugins] = await Promise.all([
  load(layout),
  load(layout, "/node"),
  load(layout, "/plugins"),
]);

let handle;
const server = createServer((request, response) => handle(request, response));
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const url = `http://127.0.0.1:${server.address().port}`;
handle = toNodeHandler(
  betterAuth({
    database: pool,
    secret: SECRET,
    baseURL: url,
    telemetry: { enabled: false },
    logger: { disabled: true },
    emailAndPassword: { enabled: true },
    ...layout.options,
    plugins: await layout.plugins(plugins),
  }),
);

const verbs = { serve: () => ({ url }), break: ({ what }) => ((broken = what), {}) };

console.log(JSON.stringify({ ok: true, layout: name }));
for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  console.log(JSON.stringify({ ok: true, ...verbs[request.do](request) }));
}
server.closeAllConnections();
server.close();
await pool.end();
