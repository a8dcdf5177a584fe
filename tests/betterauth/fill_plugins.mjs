// What the plugins of `plugins_17` leave behind beyond fill.mjs. Where a ceremony needs a browser, a wallet or a second
// site, its last step is taken through Better Auth's adapter: the row is the one that the plugin writes.

import { people } from "./people.mjs";

const DAY = 86_400_000;

export async function fill(auth, outbox, credentials) {
  const { api } = auth;
  const { adapter } = await auth.$context;
  const now = new Date();
  const later = new Date(Date.now() + 30 * DAY);
  const create = (model, data) => adapter.create({ model, data });
  const [ada, zoe, jose] = people;
  const admin = people.find(({ ways }) => ways.includes("admin"));

  for (let n = 0; n < 3; n++) await api.signInAnonymous({ headers: new Headers({ "user-agent": "curl/8.5.0" }) });
  await api.signInMagicLink({ body: { email: jose.email }, headers: new Headers() });
  await api.sendVerificationOTP({ body: { email: zoe.email, type: "sign-in" } });
  await api.getSiweNonce({});
  for (const person of people.slice(0, 4)) {
    await api.createApiKey({ body: { userId: person.id, name: `key of ${person.username}`, prefix: "sk_" } });
    await create("passkey", {
      name: "phone",
      publicKey: Buffer.from(person.id).toString("base64url"),
      userId: person.id,
      credentialID: `cred-${person.id}`,
      counter: 7,
      deviceType: "multiDevice",
      backedUp: true,
      transports: "internal,hybrid",
      createdAt: now,
      aaguid: null,
    });
  }
  await create("walletAddress", {
    userId: ada.id,
    address: "0xd8dA6BF26964aF9D7eEd9e03E53415D37aA96045",
    chainId: 1,
    isPrimary: true,
    createdAt: now,
  });
  await api.deviceCode({ body: { client_id: "tv", scope: "openid" } });
  const { user_code } = await api.deviceCode({ body: { client_id: "tv", scope: "openid" } });
  await api.deviceVerify({ query: { user_code }, headers: ada.headers });
  await api.deviceApprove({ body: { userCode: user_code }, headers: ada.headers });

  const [organizationId] = credentials.organizations;
  const { id: teamId } = await api.createTeam({
    body: { name: "Grüne Mannschaft", organizationId },
    headers: ada.headers,
  });
  await api.addTeamMember({ body: { teamId, userId: jose.id }, headers: ada.headers });
  await api.createOrgRole({
    body: { role: "auditor", permission: { member: ["update"] }, organizationId },
    headers: ada.headers,
  });
  await api.registerSSOProvider({
    body: {
      providerId: "acme",
      issuer: "https://idp.acme.example.com",
      domain: "acme.example.com",
      organizationId,
      oidcConfig: {
        clientId: "better-auth",
        clientSecret: "secret",
        skipDiscovery: true,
        authorizationEndpoint: "https://idp.acme.example.com/authorize",
        tokenEndpoint: "https://idp.acme.example.com/token",
        jwksEndpoint: "https://idp.acme.example.com/jwks",
      },
    },
    headers: ada.headers,
  });

  const client = await api.adminCreateOAuthClient({
    body: {
      redirect_uris: ["https://shop.example.com/callback"],
      client_name: "Shop",
      scope: "openid email offline_access",
    },
    headers: admin.headers,
  });
  const clientId = client.client_id;
  const scopes = ["openid", "email", "offline_access"];
  for (const { id: userId } of [ada, zoe, jose]) {
    const session = await adapter.findOne({ model: "session", where: [{ field: "userId", value: userId }] });
    await create("oauthConsent", { clientId, userId, scopes, createdAt: now, updatedAt: now });
    const issued = { clientId, userId, sessionId: session.id, scopes, expiresAt: later, createdAt: now };
    const { id: refreshId } = await create("oauthRefreshToken", { ...issued, token: `refresh-of-${userId}` });
    await create("oauthAccessToken", { ...issued, token: `access-of-${userId}`, refreshId });
  }
}
