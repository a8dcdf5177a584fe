// The people of every database here: names and addresses as real ones are, and what each did.
// `ways` beside the password: "2fa", "2fa-pending", "reset", "signed-out", "admin", "banned", "verified".

const LONG_MAIL = `${"l".repeat(64)}@${"d".repeat(60)}.${"e".repeat(60)}.${"f".repeat(50)}.example.com`;

export const people = [
  ["Ada Lovelace", "ada@example.com", "2fa verified", "https://img.example.com/a/ada.png"],
  ["Zoë Ångström", "zoe.angstrom@example.com", "2fa verified reset"],
  ["José María Núñez Álvarez", "jose.maria@example.org", "verified"],
  ["山田 太郎", "taro.yamada@example.jp", "2fa-pending"],
  ["김민준", "minjun.kim@example.kr", "verified", "https://img.example.com/a/김민준.png"],
  ["محمد بن سلمان الأحمد", "mohammed+work@example.com", "verified reset"],
  ["Siobhán O'Brien-O’Neill", "siobhan.obrien@example.ie", "2fa"],
  ['Ωmega "Quote" \\Backslash\\', "weird.quotes@example.com", ""],
  [
    "👩🏽‍🚀 Astro",
    "astro@example.com",
    "verified",
    "data:image/svg+xml;base64,PHN2ZyB4bWxucz0iaHR0cDovL3d3dy53My5vcmcvMjAwMC9zdmciLz4=",
  ],
  ["שרה כהן", "sara.cohen@example.co.il", "verified signed-out"],
  ["", "no.name@example.com", "signed-out"],
  ["Mixed Case Mail", "Mixed.Case@Example.com", "verified"],
  [LONG_MAIL.slice(0, 10), LONG_MAIL, ""],
  [`Very Long Name ${"x".repeat(240)}`, "very.long.name@example.com", "verified"],
  ["Tab\tand\nNewline", "ctrl.chars@example.com", ""],
  ["   Spaces   ", "spaces@example.com", "signed-out"],
  ["Банко, Иван; DROP TABLE users;--", "bobby.tables@example.com", "verified"],
  ["e\u0301cole (NFD)", "nfd@example.com", ""],
  ["\u200eLTR mark", "ltr@example.com", "verified"],
  ["Banned Bob", "banned.bob@example.com", "verified banned"],
  ["Admin Root", "admin@example.com", "verified admin", "https://img.example.com/a/admin.png"],
].map(([name, email, ways, image], number) => ({
  name,
  email,
  image,
  ways: ways.split(" "),
  username: `person_${number}`,
  phone: `+4930${5550000 + number}`,
  password: number === 3 ? "пароль-密码-パスワード-é" : `Correct-Horse-${number}-Battery`,
}));

// People who never had a password here: [name, email, provider, their id at the provider].
export const linked = [
  ["Único SSO Usuário", "sso.only@corp.example.com", "acme-sso", "acme|1001"],
  ["سارة", "sso.two@corp.example.com", "google", "110169484474386276334"],
];

export const AGENTS = [
  ["203.0.113.7", "curl/8.5.0"],
  ["198.51.100.23", "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15"],
  ["2001:db8:85a3::8a2e:370:7334", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)"],
];
