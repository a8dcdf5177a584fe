// The old app: a Better Auth over one of the fixtures, that goes on signing people up and in while others change the
// database beneath it:
//   DATABASE_URL=... node oldapp.mjs LAYOUT
// It answers one JSON object a line with one JSON object a line, and ends when its input does:
//   {"do": "sign-up", "email", "password", "name"}  ->  {"ok": true, "id", "token"}
//   {"do": "sign-in", "email", "password"}          ->  {"ok": true, "id", "token"}, or "secondFactor": true for both
//   {"do": "session", "token"}                      ->  {"ok": true, "id", "email", "name"}
//   {"do": "update-user", "token", "name"}          ->  {"ok": true}
//   {"do": "http", "path", "headers", "body"}       ->  {"ok": true, "status", "cookies", "token", "body"}: as a browser
//                                                       would have it; a GET unless there is a body
// What fails is {"ok": false, "error"}. The first line, {"ok": true, "layout"}, says that it is listening.

import { createInterface } from "node:readline";
import pg from "pg";
import { SECRET, layouts, load } from "./layouts.mjs";

process.env.TZ = "UTC"; // Columns without a time zone hold UTC.
const name = process.argv[2];
const layout = layouts[name];
if (!layout || !process.env.DATABASE_URL) {
  console.error(`DATABASE_URL=... node oldapp.mjs ${Object.keys(layouts).join("|")}`);
  process.exit(2);
}

const BASE = "https://auth.example.com";
const pool = new pg.Pool({
  connectionString: process.env.DATABASE_URL,
  options: `-c search_path=${layout.searchPath ?? "public"} -c timezone=UTC`,
});
pool.on("error", () => {}); // A server that goes away is an error of the next request, not of the app.

const [{ betterAuth }, plugins] = await Promise.all([load(layout), load(layout, "/plugins")]);
const { api, handler } = betterAuth({
  database: pool,
  secret: SECRET,
  baseURL: BASE,
  telemetry: { enabled: false },
  logger: { disabled: true },
  emailAndPassword: { enabled: true },
  ...layout.options,
  plugins: [...(await layout.plugins(plugins)), plugins.bearer()],
});

const bearing = (token) => new Headers({ authorization: `Bearer ${token}` });

const verbs = {
  "sign-up": async ({ email, password, name }) => {
    const { user, token } = await api.signUpEmail({ body: { email, password, name } });
    return { id: String(user.id), token };
  },
  "sign-in": async ({ email, password }) => {
    const { user, token, twoFactorRedirect } = await api.signInEmail({
      body: { email, password },
      headers: new Headers(),
    });
    return twoFactorRedirect ? { secondFactor: true } : { id: String(user.id), token };
  },
  session: async ({ token }) => {
    const found = await api.getSession({ headers: bearing(token) });
    if (!found) throw new Error("no such session");
    return { id: String(found.user.id), email: found.user.email, name: found.user.name };
  },
  "update-user": async ({ token, name }) => {
    await api.updateUser({ body: { name }, headers: bearing(token) });
    return {};
  },
  http: async ({ path, headers, body }) => {
    const sent = new Headers({ origin: BASE, "x-forwarded-for": "192.0.2.1", ...headers });
    if (body) sent.set("content-type", "application/json");
    const method = body ? "POST" : "GET";
    const answer = await handler(new Request(`${BASE}/api/auth${path}`, { method, headers: sent, body: body && JSON.stringify(body) }));
    const cookies = answer.headers.getSetCookie();
    return { status: answer.status, cookies, token: answer.headers.get("set-auth-token"), body: await answer.json() };
  },
};

async function answer(line) {
  try {
    const request = JSON.parse(line);
    return { ok: true, ...(await verbs[request.do](request)) };
  } catch (error) {
    return { ok: false, error: error.message || error.body?.message || String(error) };
  }
}

console.log(JSON.stringify({ ok: true, layout: name }));
for await (const line of createInterface({ input: process.stdin })) console.log(JSON.stringify(await answer(line)));
await pool.end();
