// A provider: Better Auth with its oauth-provider plugin, in memory, on loopback:
//   node oauth_provider.mjs PORT
// It has one API, a client that people sign in with, and one that is a machine. The first line it prints is
// {"ok": true, "issuer", "api", "client", "machine": {"id", "secret"}}; it ends when its input does.

import { createServer } from "node:http";
import { betterAuth } from "better-auth";
import { memoryAdapter } from "better-auth/adapters/memory";
import { toNodeHandler } from "better-auth/node";
import { jwt } from "better-auth/plugins";
import { oauthProvider, oauthProviderOpenIdConfigMetadata } from "@better-auth/oauth-provider";
import { answering } from "./answering.mjs";

const [port] = process.argv.slice(2);
const origin = `http://127.0.0.1:${port}`;
const api = "https://api.example.com";
const tables = {
  user: [], session: [], account: [], verification: [], jwks: [],
  oauthClient: [], oauthResource: [], oauthClientResource: [], oauthClientAssertion: [],
  oauthRefreshToken: [], oauthAccessToken: [], oauthConsent: [],
};

const operator = { email: "operator@example.com", name: "Operator", password: "Correct-Horse-Battery-1" };

const auth = betterAuth({
  baseURL: origin,
  secret: "6Xv2-only-for-tests-aQ9wLr8ZkTn3pYdH5uMc",
  database: memoryAdapter(tables),
  telemetry: { enabled: false },
  rateLimit: { enabled: false },
  emailAndPassword: { enabled: true },
  disabledPaths: ["/token"], // As the plugin's documentation asks: sessions get no JWT of their own.
  plugins: [
    jwt({ disableSettingJwtHeader: true }),
    oauthProvider({
      loginPage: "/login",
      consentPage: "/consent",
      scopes: ["openid", "profile", "email", "offline_access", "invoices:read"],
      resources: [api],
      enforcePerClientResources: false,
      clientPrivileges: ({ user }) => user.email === operator.email,
    }),
  ],
});

const signedUp = await auth.api.signUpEmail({ body: operator, returnHeaders: true });
const headers = new Headers({ cookie: signedUp.headers.getSetCookie().map((cookie) => cookie.split(";")[0]).join("; ") });
const client = await auth.api.adminCreateOAuthClient({
  headers,
  body: {
    client_name: "the app",
    application_type: "native",
    redirect_uris: ["http://127.0.0.1/callback"],
    token_endpoint_auth_method: "none",
    grant_types: ["authorization_code", "refresh_token"],
    response_types: ["code"],
    skip_consent: true,
  },
});
const machine = await auth.api.adminCreateOAuthClient({
  headers,
  body: {
    client_name: "a nightly job",
    token_endpoint_auth_method: "client_secret_basic",
    grant_types: ["client_credentials"],
    response_types: [],
    client_credentials_scopes: ["invoices:read"],
  },
});

// The plugin leaves it to the operator to serve the discovery document.
const discovery = oauthProviderOpenIdConfigMetadata(auth);
const handle = toNodeHandler(auth);
const server = createServer(async (request, response) => {
  if (request.url !== "/api/auth/.well-known/openid-configuration") return handle(request, response);
  const answer = await discovery(new Request(origin + request.url));
  response.writeHead(answer.status, Object.fromEntries(answer.headers)).end(await answer.text());
});

await answering(server, port, {
  issuer: `${origin}/api/auth`,
  api,
  client: client.client_id,
  machine: { id: machine.client_id, secret: machine.client_secret },
});
