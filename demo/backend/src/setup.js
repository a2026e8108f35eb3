'use strict';

// Migrations, and once the demo's people: `node src/setup.js`. Nobody in here exists.

const { randomBytes } = require('node:crypto');
const bcrypt = require('bcryptjs');
const { readDatabaseConfig } = require('./config');
const { createPool, transaction } = require('./database');
const { run } = require('./migrate');

const PATIENTS = 300;
const FIRST = ['Testina', 'Probus', 'Examplia', 'Sampleton', 'Demona', 'Fictus', 'Dummyline', 'Mockbert'];
const LAST = ['Mustermann', 'Placeholder', 'Nobody', 'Invented', 'Fakename', 'Notareal', 'Specimen'];
const STAFF = [
  ['admin@allodoc.test', 'Adminia', 'Example', 'admin'],
  ['doctor@allodoc.test', 'Doctorus', 'Example', 'doctor'],
  ['nurse@allodoc.test', 'Nursina', 'Example', 'nurse'],
  ['reception@allodoc.test', 'Receptia', 'Example', 'receptionist'],
];

/** Fill an empty schema. Staff get a password that nobody knows; only the smoke account can log in. */
async function seed(client, smoke, rounds) {
  const organization = (await client.query(`INSERT INTO "organizations" ("name") VALUES ('Demo Clinic') RETURNING "id"`))
    .rows[0].id;
  for (const name of ['admin', 'doctor', 'nurse', 'receptionist', 'smoke']) {
    await client.query('INSERT INTO "roles" ("name", "description") VALUES ($1, $2)', [name, `The role ${name}`]);
  }
  const [unknown, known] = await Promise.all([
    bcrypt.hash(randomBytes(24).toString('hex'), rounds),
    bcrypt.hash(smoke.password, rounds),
  ]);
  const people = [
    ...STAFF.map((person) => [...person, unknown]),
    [smoke.email, 'Smoke', 'Account', 'smoke', known],
  ];
  for (const [email, firstName, lastName, role, password] of people) {
    await client.query(
      `WITH person AS (
         INSERT INTO "users" ("email", "firstName", "lastName", "password", "organizationId")
         VALUES ($1, $2, $3, $4, $5) RETURNING "id")
       INSERT INTO "user_roles" SELECT person."id", r."id" FROM person, "roles" r WHERE r."name" = $6`,
      [email, firstName, lastName, password, organization, role],
    );
  }
  await client.query(
    `INSERT INTO "patients" ("firstName", "lastName", "dateOfBirth", "organizationId")
     SELECT ($2::text[])[1 + n % cardinality($2::text[])],
            ($3::text[])[1 + n % cardinality($3::text[])] || '-' || lpad(n::text, 3, '0'),
            date '1930-01-01' + n * 97, $1
     FROM generate_series(1, $4::int) AS n`,
    [organization, FIRST, LAST, PATIENTS],
  );
  await client.query(
    `INSERT INTO "appointments" ("patientId", "doctorId", "startsAt")
     SELECT p."id", u."id", date_trunc('day', now()) + interval '8 hours' + (row_number() OVER ()) * interval '15 minutes'
     FROM "patients" p, "users" u WHERE u."email" = 'doctor@allodoc.test'`,
  );
}

async function main() {
  const pool = createPool({ ...readDatabaseConfig(), poolSize: 2 });
  await pool.query('CREATE EXTENSION IF NOT EXISTS pg_stat_statements');
  const server = await pool.query("SELECT current_setting('server_version_num')::int AS number");
  // Before PostgreSQL 13 gen_random_uuid() came with this extension.
  if (server.rows[0].number < 130000) await pool.query('CREATE EXTENSION IF NOT EXISTS pgcrypto');
  for (const name of await run(pool)) console.log(`applied ${name}`);
  const people = await pool.query('SELECT count(*)::int AS total FROM "users"');
  if (people.rows[0].total === 0) {
    const smoke = { email: process.env.SMOKE_EMAIL, password: process.env.SMOKE_PASSWORD };
    await transaction(pool, (client) => seed(client, smoke, Number(process.env.BCRYPT_ROUNDS || 12)));
    console.log('seeded');
  }
  await pool.query('ANALYZE');
  await pool.end();
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
