// A provider with users to read back: the Better Auth of a layout with its admin plugin, over HTTP on loopback:
//   DATABASE_URL=... node directory.mjs LAYOUT
// It answers one JSON object a line with one JSON object a line, and ends when its input does:
//   {"do": "serve"}            ->  {"ok": true, "url"}
//   {"do": "break", "what"}    ->  {"ok": true}: from now on queries over all users fail ("list"), or none ("nothing")
//   {"do": "exchanged"}        ->  {"ok": true, "times"}: how often an API key was exchanged
// Beside Better Auth's own routes it has the two of Auther's that read users, as Auther documents them, over the same
// users: POST /api/auth/api-key/exchange for the key "auther-key", and GET /api/admin/users/{id} with the token.
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
const server = createServer((request, response) =>
  (/^\/api\/(admin\/users\/|auth\/api-key\/)/.test(request.url) ? auther : handle)(request, response),
);
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const url = `http://127.0.0.1:${server.address().port}`;
const auth = betterAuth({
  database: pool,
  secret: SECRET,
  baseURL: url,
  telemetry: { enabled: false },
  logger: { disabled: true },
  emailAndPassword: { enabled: true },
  ...layout.options,
  plugins: await layout.plugins(plugins),
});
handle = toNodeHandler(auth);

const LASTS = 0.3; // seconds: a run needs several tokens
const tokens = new Map();
async function auther(request, response) {
  const [status, answer] = await (request.method === "POST" ? exchange(request) : user(request));
  response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(answer));
}
async function exchange(request) {
  let body = "";
  for await (const chunk of request) body += chunk;
  if (JSON.parse(body).apiKey !== "auther-key") return [401, { error: "Unauthorized" }];
  const token = crypto.randomUUID();
  tokens.set(token, Date.now() + LASTS * 1000);
  return [200, { token, expiresIn: LASTS }];
}
async function user(request) {
  const token = request.headers.authorization?.replace("Bearer ", "");
  if (!(tokens.get(token) > Date.now())) return [401, { error: "Unauthorized" }];
  const id = decodeURIComponent(request.url.split("/").pop());
  const { internalAdapter } = await auth.$context;
  const found = await internalAdapter.findUserById(id);
  return found ? [200, found] : [404, { error: "User not found" }];
}

const verbs = {
  serve: () => ({ url }),
  break: ({ what }) => ((broken = what), {}),
  exchanged: () => ({ times: tokens.size }),
};

console.log(JSON.stringify({ ok: true, layout: name }));
for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  console.log(JSON.stringify({ ok: true, ...verbs[request.do](request) }));
}
server.closeAllConnections();
server.close();
await pool.end();
