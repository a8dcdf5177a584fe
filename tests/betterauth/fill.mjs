// Fill a database through Better Auth's own API: people sign up, in and out, reset passwords, link providers, turn on
// second factors, join organisations. What a plugin is asked for depends on the plugins that the layout has.

import { AGENTS, linked, people } from "./people.mjs";
import { SECRET } from "./layouts.mjs";

const DAY = 86_400_000;
const cookies = (headers) =>
  headers
    .getSetCookie()
    .map((cookie) => cookie.split(";")[0])
    .join("; ");

/** What the app sends: Better Auth's mails and messages end here and are read back by the person they were for. */
export class Outbox {
  sent = {};
  options = {
    secret: SECRET,
    baseURL: "https://auth.example.com",
    telemetry: { enabled: false },
    emailAndPassword: {
      enabled: true,
      sendResetPassword: async ({ user, token }) => this.keep("reset", user.email, token),
    },
    emailVerification: { sendVerificationEmail: async ({ user, token }) => this.keep("verify", user.email, token) },
  };
  keep = (what, whom, secret) => (this.sent[`${what} ${whom}`] = secret);
  take = (what, whom) => this.sent[`${what} ${whom}`];
}

/** Fill the database of `auth`; returns what a test needs to sign in: passwords, second factors, tokens. */
export async function fill(auth, outbox) {
  const context = await auth.$context;
  const { api } = auth;
  const plugins = new Set((context.options.plugins ?? []).map((plugin) => plugin.id));
  const credentials = { secret: SECRET, users: [], twoFactor: [], jwt: [], organizations: [] };

  const headersOf = (number) =>
    new Headers({ "x-forwarded-for": AGENTS[number % 3][0], "user-agent": AGENTS[number % 3][1] });
  const signIn = async ({ email, password }, number = 0) => {
    const { headers } = await api.signInEmail({
      body: { email, password },
      headers: headersOf(number),
      returnHeaders: true,
    });
    const signedIn = headersOf(number);
    signedIn.set("cookie", cookies(headers));
    return signedIn;
  };

  for (const [number, person] of people.entries()) {
    const { name, email, password, image, username, phone, ways } = person;
    const body = { name, email, password, image, ...(plugins.has("username") && number % 2 ? { username } : {}) };
    const { user } = await api.signUpEmail({ body, headers: headersOf(number) });
    person.id = user.id;
    person.headers = await signIn(person, number);
    if (ways.includes("verified")) {
      await api.sendVerificationEmail({ body: { email: user.email } });
      await api.verifyEmail({ query: { token: outbox.take("verify", user.email) } });
    }
    if (ways.includes("reset")) {
      await api.requestPasswordReset({ body: { email: user.email } });
      person.password = `New-Password-After-Reset-${number}`;
      await api.resetPassword({ body: { newPassword: person.password, token: outbox.take("reset", user.email) } });
      person.headers = await signIn(person, number);
    }
    if (number % 4 === 1) await api.requestPasswordReset({ body: { email: user.email } });
    if (number % 5 === 0) await api.updateUser({ body: { image: image ?? null, name }, headers: person.headers });
    if (plugins.has("phone-number") && number % 4 === 0) {
      await api.sendPhoneNumberOTP({ body: { phoneNumber: phone } });
      const code = outbox.take("phone", phone);
      await api.verifyPhoneNumber({
        body: { phoneNumber: phone, code, updatePhoneNumber: true },
        headers: person.headers,
      });
    }
    // Not everybody came today.
    const createdAt = new Date(Date.now() - (23 * (number + 1) + (number * 37) / 24) * DAY);
    await context.internalAdapter.updateUser(user.id, { createdAt });
    credentials.users.push({ id: user.id, email: user.email, password: person.password });
  }

  for (const [name, email, providerId, accountId] of linked) {
    await linkNewcomer(context, { name, email, providerId, accountId });
  }
  // Ada has a password and a provider.
  await context.internalAdapter.createAccount({
    userId: people[0].id,
    providerId: "github",
    accountId: "58102",
    accessToken: "gho_16C7e42F292c6912E7",
    scope: "read:user,user:email",
  });

  if (plugins.has("jwt")) credentials.jwt.push((await api.getToken({ headers: people[0].headers })).token);
  if (plugins.has("admin")) await administer(context, api);
  if (plugins.has("organization")) credentials.organizations = await organise(api);
  if (plugins.has("two-factor")) {
    for (const person of people) {
      if (person.ways.some((way) => way.startsWith("2fa"))) credentials.twoFactor.push(await secondFactor(api, person));
    }
  }
  if (context.options.rateLimit?.storage === "database") await knock(auth, context);

  for (const person of people) if (person.ways.includes("signed-out")) await api.signOut({ headers: person.headers });
  // Sessions that ran out and were never cleaned up.
  for (const { id } of people.slice(4, 8)) {
    const expiresAt = new Date(Date.now() - 3 * DAY);
    await context.adapter.updateMany({
      model: "session",
      where: [{ field: "userId", value: id }],
      update: { expiresAt },
    });
  }
  return credentials;
}

async function linkNewcomer(context, { name, email, providerId, accountId }) {
  const { internalAdapter } = context;
  const user = await internalAdapter.createUser({ name, email, emailVerified: true });
  await internalAdapter.createAccount({
    userId: user.id,
    providerId,
    accountId,
    accessToken: `at_${accountId}`,
    refreshToken: `rt_${accountId}`,
    idToken: "eyJhbGciOiJSUzI1NiIsImtpZCI6InRlc3QifQ.eyJzdWIiOiJ4In0.c2lnbmF0dXJl",
    accessTokenExpiresAt: new Date(Date.now() + 3_600_000),
    scope: "openid,email,profile",
  });
  await internalAdapter.createSession(user.id, { context }); // 1.3 takes the request here, later ones "for a day only"
}

async function administer(context, api) {
  const named = (way) => people.find(({ ways }) => ways.includes(way));
  const admin = named("admin");
  await context.internalAdapter.updateUser(admin.id, { role: "admin" });
  const headers = admin.headers;
  await api.setRole({ body: { userId: people[1].id, role: ["admin", "user"] }, headers });
  await api.banUser({
    body: { userId: named("banned").id, banReason: 'spam; "really"', banExpiresIn: 86_400 * 365 },
    headers,
  });
  await api.impersonateUser({ body: { userId: people[2].id }, headers });
}

async function organise(api) {
  const ids = [];
  for (const [number, name] of ["Acme — Überdivision", "株式会社テスト"].entries()) {
    const { headers } = people[number];
    const { id } = await api.createOrganization({
      body: { name, slug: `org-${number}`, metadata: { plan: "free" } },
      headers,
    });
    ids.push(id);
    for (const { id: userId } of people.slice(2, 8))
      await api.addMember({ body: { userId, role: "member", organizationId: id } });
    await api.createInvitation({ body: { email: "invitee@example.net", role: "member", organizationId: id }, headers });
    await api.setActiveOrganization({ body: { organizationId: id }, headers });
  }
  return ids;
}

async function secondFactor(api, { email, password, headers, ways }) {
  const { totpURI, backupCodes } = await api.enableTwoFactor({ body: { password }, headers });
  const secret = Buffer.from(base32(new URL(totpURI).searchParams.get("secret"))).toString();
  const verified = ways.includes("2fa");
  if (verified) {
    const { code } = await api.generateTOTP({ body: { secret } });
    const renewed = await api.verifyTOTP({ body: { code }, headers, returnHeaders: true });
    headers.set("cookie", cookies(renewed.headers));
  }
  return { email: email.toLowerCase(), secret, backupCodes, verified };
}

function base32(text) {
  const bits = [...text.replaceAll("=", "")]
    .map((c) => "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".indexOf(c).toString(2).padStart(5, "0"))
    .join("");
  return bits.match(/.{8}/g).map((byte) => parseInt(byte, 2));
}

/** Requests over HTTP, for only these are counted by the rate limit; and the app's own counters, a session each. */
async function knock(auth, { adapter }) {
  for (const [address, agent] of AGENTS) {
    for (const path of ["/get-session", "/get-session", "/ok"]) {
      await auth.handler(
        new Request(`https://auth.example.com/api/auth${path}`, {
          headers: { "x-forwarded-for": address, "user-agent": agent },
        }),
      );
    }
  }
  for (const { token } of (await adapter.findMany({ model: "session" })).slice(0, 8)) {
    await adapter.create({ model: "rateLimit", data: { key: `session:${token}`, count: 3, lastRequest: Date.now() } });
  }
}
