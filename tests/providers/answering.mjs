// What the providers have in common: a server on loopback that says when it listens, and does what its input says.

import { createInterface } from "node:readline";

/**
 * @param {import("node:http").Server} server
 * @param {string} port
 * @param {object} facts what the first line says
 * @param {Record<string, () => object | Promise<object>>} verbs what may be asked for, by name
 */
export async function answering(server, port, facts, verbs = {}) {
  await new Promise((listening) => server.listen(Number(port), "127.0.0.1", listening));
  console.log(JSON.stringify({ ok: true, ...facts }));
  for await (const line of createInterface({ input: process.stdin })) {
    console.log(JSON.stringify({ ok: true, ...(await verbs[JSON.parse(line).do]()) }));
  }
  server.closeAllConnections();
  server.close();
}
