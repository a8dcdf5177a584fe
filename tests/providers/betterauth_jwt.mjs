// A provider: Better Auth with its jwt plugin, in memory, on loopback:
//   node betterauth_jwt.mjs PORT [ALG]
// The first line it prints is {"ok": true, "issuer"}; it ends when its input does. It is told by one JSON object a line,
// and answers each with one:
//   {"do": "expire"}  ->  the key that signs is past its rotation interval: the next token has a new one
//   {"do": "retire"}  ->  every key but the newest is removed from the table jwks

import { createServer } from "node:http";
import { betterAuth } from "better-auth";
import { memoryAdapter } from "better-auth/adapters/memory";
import { toNodeHandler } from "better-auth/node";
import { jwt } from "better-auth/plugins";
import { answering } from "./answering.mjs";

const [port, alg] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const tables = { user: [], session: [], account: [], verification: [], jwks: [] };

const auth = betterAuth({
  baseURL: issuer,
  secret: "6Xv2-only-for-tests-aQ9wLr8ZkTn3pYdH5uMc",
  database: memoryAdapter(tables),
  telemetry: { enabled: false },
  rateLimit: { enabled: false },
  emailAndPassword: { enabled: true },
  plugins: [jwt(alg ? { jwks: { keyPairConfig: { alg } } } : {})],
});

const byAge = (a, b) => a.createdAt - b.createdAt;
await answering(createServer(toNodeHandler(auth)), port, { issuer }, {
  expire: () => {
    for (const key of tables.jwks) key.expiresAt ??= new Date(Date.now() - 1);
    return { keys: tables.jwks.length };
  },
  retire: () => {
    tables.jwks.sort(byAge).splice(0, tables.jwks.length - 1);
    return { keys: tables.jwks.length };
  },
});
