// The app's own tables, which must survive the cutover: every kind of foreign key to the people, and columns that
// hold their ids without one. {table}, [column], @users and @key (the type of an id) are written as the layout does.

const SNAKE = (name) => name.replace(/(?<=[a-z0-9])(?=[A-Z])/g, "_").toLowerCase();

/** Statements that make and fill the app's tables beside the people of `place`, in its spelling. */
export function appTables({ users, key, email = "email", style = "camel", schema = "public", extras = [] }) {
  const column = (name) => (style === "snake" ? SNAKE(name) : `"${name}"`);
  const table = (name) => `${schema}.${style === "snake" ? `${SNAKE(name)}s` : `"${name}"`}`;
  const write = (text) =>
    text
      .replace(/\{(\w+)\}/g, (_, name) => table(name))
      .replace(/\[(\w+)\]/g, (_, name) => column(name))
      .replaceAll("@users", users)
      .replaceAll("@email", email)
      .replaceAll("@key", key);
  return [BASIC, ...extras.map((extra) => EXTRAS[extra])]
    .flatMap((text) => write(text).split(";\n"))
    .filter((s) => s.trim());
}

const BASIC = `
ALTER TABLE @users
  ADD COLUMN plan text NOT NULL DEFAULT 'free', ADD COLUMN locale text, ADD COLUMN preferences jsonb DEFAULT '{}';
UPDATE @users SET plan = 'pro', locale = 'de-AT', preferences = '{"theme": "dark"}' WHERE length(@email) % 3 = 0;

CREATE TABLE {post} (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  [authorId] @key NOT NULL REFERENCES @users (id) ON DELETE CASCADE,
  title text NOT NULL,
  [createdAt] timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON {post} ([authorId]);
INSERT INTO {post} ([authorId], title)
  SELECT id, 'Post ' || n || ' — é' FROM @users, generate_series(1, 3) n ORDER BY n, id;

CREATE TABLE {comment} (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  [postId] bigint NOT NULL REFERENCES {post} (id) ON DELETE CASCADE,
  [parentId] bigint REFERENCES {comment} (id),
  [userId] @key REFERENCES @users (id) ON DELETE SET NULL,
  body text NOT NULL
);
INSERT INTO {comment} ([postId], [parentId], [userId], body)
  SELECT n, CASE WHEN n > 1 THEN n - 1 END, CASE WHEN n % 7 > 0 THEN id END, 'comment ' || n
  FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM @users) people;

CREATE TABLE {invoice} (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  [userId] @key NOT NULL REFERENCES @users (id) ON DELETE RESTRICT,
  [approvedBy] @key REFERENCES @users (id),
  amount numeric(12,2) NOT NULL
);
INSERT INTO {invoice} ([userId], [approvedBy], amount)
  SELECT id, CASE WHEN row_number() OVER (ORDER BY id) % 2 = 0 THEN max(id::text) OVER ()::@key END, length(@email) * 9.99
  FROM @users;

CREATE TABLE {seat} (
  id integer PRIMARY KEY,
  [userId] @key UNIQUE REFERENCES @users (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);
INSERT INTO {seat} SELECT row_number() OVER (ORDER BY id), id FROM @users;

CREATE TABLE {projectMember} (
  [projectId] integer NOT NULL,
  [userId] @key NOT NULL REFERENCES @users (id) ON UPDATE CASCADE ON DELETE CASCADE,
  PRIMARY KEY ([projectId], [userId])
);
CREATE TABLE {task} (
  id integer PRIMARY KEY,
  [projectId] integer NOT NULL,
  [assigneeId] @key,
  FOREIGN KEY ([projectId], [assigneeId]) REFERENCES {projectMember} ([projectId], [userId]) ON UPDATE CASCADE
);
INSERT INTO {projectMember} SELECT n, id FROM @users, generate_series(1, 2) n WHERE length(@email) % 2 = 0;
INSERT INTO {task}
  SELECT row_number() OVER (ORDER BY [projectId], [userId]), [projectId], [userId] FROM {projectMember};

CREATE TABLE {profile} (
  [userId] @key PRIMARY KEY REFERENCES @users (id) ON DELETE CASCADE,
  [managerId] @key REFERENCES {profile} ([userId]),
  bio text
);
INSERT INTO {profile} SELECT id, NULL, 'bio of ' || id FROM @users;
UPDATE {profile} SET [managerId] = boss.id
  FROM (SELECT id FROM @users ORDER BY @email LIMIT 1) boss WHERE [userId] <> boss.id;

CREATE TABLE {auditLog} (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  [actorId] @key,
  [entityType] text,
  [entityId] text,
  at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO {auditLog} ([actorId], [entityType], [entityId]) SELECT id, 'user', id::text FROM @users ORDER BY @email;
`;

const EXTRAS = {
  invitedBy: `
ALTER TABLE @users ADD COLUMN [invitedBy] @key REFERENCES @users (id) ON DELETE SET NULL;
UPDATE @users AS guest SET [invitedBy] = host.id
  FROM (SELECT id FROM @users ORDER BY @email LIMIT 1) host WHERE guest.id <> host.id;
`,
  cycle: `
CREATE TABLE {company} (id integer PRIMARY KEY, [ownerId] @key NOT NULL REFERENCES @users (id), name text NOT NULL);
ALTER TABLE @users ADD COLUMN [companyId] integer REFERENCES {company} (id);
INSERT INTO {company}
  SELECT row_number() OVER (ORDER BY id), id, 'Company of ' || @email FROM @users ORDER BY id LIMIT 3;
UPDATE @users SET [companyId] = 1 + length(@email) % 3;
`,
  composite: `
ALTER TABLE @users ADD UNIQUE (id, @email);
CREATE TABLE {newsletter} (
  [userId] @key,
  email text,
  FOREIGN KEY ([userId], email) REFERENCES @users (id, @email) MATCH FULL ON UPDATE CASCADE
);
INSERT INTO {newsletter} SELECT id, @email FROM @users WHERE length(@email) % 2 = 1;
`,
  partitions: `
CREATE TABLE {visit} (
  [userId] @key NOT NULL REFERENCES @users (id) ON DELETE CASCADE,
  at timestamptz NOT NULL,
  PRIMARY KEY ([userId], at)
) PARTITION BY RANGE (at);
CREATE TABLE visit_2025 PARTITION OF {visit} FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE visit_2026 PARTITION OF {visit} FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
INSERT INTO {visit} SELECT id, make_timestamptz(2025 + length(@email) % 2, 7, 1, 12, 0, 0, 'UTC') FROM @users;
`,
};
