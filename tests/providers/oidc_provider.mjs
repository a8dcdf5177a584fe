// A provider: panva's oidc-provider, a certified OpenID provider, in memory, on loopback:
//   node oidc_provider.mjs PORT KEYS
// Its keys are those in the file KEYS; if there is none it makes two and writes it. The people it knows are whoever
// signs in, and the account is the name they give. It has two APIs: tokens for the first say nothing of their user but
// the sub; those for the second have what an operator adds, for oidc-provider's userinfo takes no token for an API.
// The first line it prints is {"ok": true, "issuer", "apis", "client", "machine": {"id", "secret"}}; it ends when its
// input does.

import { createServer } from "node:http";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { exportJWK, generateKeyPair } from "jose";
import { Provider, errors } from "oidc-provider";
import { answering } from "./answering.mjs";

const [port, file] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const apis = { RS256: "https://rs256.api.example.com", ES256: "https://es256.api.example.com" };

async function key(alg) {
  const { privateKey } = await generateKeyPair(alg, { extractable: true });
  return { ...(await exportJWK(privateKey)), alg, use: "sig", kid: crypto.randomUUID() };
}

if (!existsSync(file)) writeFileSync(file, JSON.stringify({ keys: await Promise.all(Object.keys(apis).map(key)) }));
const machine = { id: "nightly-job", secret: "a-secret-of-the-nightly-job-and-of-nobody-else" };

const profile = (id) => ({
  sub: id,
  email: `${id}@people.example.com`,
  email_verified: true,
  name: `${id} of oidc-provider`,
  picture: `https://people.example.com/${id}.png`,
});

const provider = new Provider(issuer, {
  jwks: JSON.parse(readFileSync(file, "utf8")),
  cookies: { keys: ["interop"] },
  clients: [
    {
      client_id: "app",
      application_type: "native",
      redirect_uris: ["http://127.0.0.1/callback"],
      token_endpoint_auth_method: "none",
      grant_types: ["authorization_code", "refresh_token"],
    },
    {
      client_id: machine.id,
      client_secret: machine.secret,
      redirect_uris: [],
      response_types: [],
      grant_types: ["client_credentials"],
    },
  ],
  claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name", "picture"] },
  findAccount: (_, id) => ({ accountId: id, claims: () => profile(id) }),
  extraTokenClaims: (_, token) => (token.accountId && token.aud === apis.ES256 ? profile(token.accountId) : undefined),
  features: {
    devInteractions: { enabled: true },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_, resource) => {
        const alg = Object.keys(apis).find((name) => apis[name] === resource);
        if (!alg) throw new errors.InvalidTarget();
        return {
          scope: "invoices:read",
          audience: resource,
          accessTokenTTL: 900,
          accessTokenFormat: "jwt",
          jwt: { sign: { alg } },
        };
      },
    },
  },
});

await answering(createServer(provider.callback()), port, { issuer, apis, client: "app", machine });
