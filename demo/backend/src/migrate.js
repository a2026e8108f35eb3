'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { readDatabaseConfig } = require('./config');
const { createPool, transaction } = require('./database');

const FOLDER = path.join(__dirname, 'migrations');
const TABLE = `CREATE TABLE IF NOT EXISTS "migrations" (
  "id" serial PRIMARY KEY, "timestamp" bigint NOT NULL, "name" varchar NOT NULL)`;

/** The migrations on disk, oldest first; named as TypeORM names its classes. */
function available() {
  return fs
    .readdirSync(FOLDER)
    .filter((file) => /^\d+-\w+\.js$/.test(file))
    .sort()
    .map((file) => {
      const [, timestamp, title] = /^(\d+)-(\w+)\.js$/.exec(file);
      return { timestamp, name: title + timestamp, ...require(path.join(FOLDER, file)) };
    });
}

/** The names of those that the database has, in the order in which they ran. */
async function applied(pool) {
  const table = await pool.query(`SELECT to_regclass('migrations') AS found`);
  if (table.rows[0].found === null) return [];
  return (await pool.query('SELECT "name" FROM "migrations" ORDER BY "id"')).rows.map((row) => row.name);
}

/** Run what is pending, each in a transaction of its own. Returns the names. */
async function run(pool) {
  await pool.query(TABLE);
  const done = new Set(await applied(pool));
  const pending = available().filter((migration) => !done.has(migration.name));
  for (const migration of pending) {
    await transaction(pool, async (client) => {
      for (const statement of migration.up) await client.query(statement);
      await client.query('INSERT INTO "migrations" ("timestamp", "name") VALUES ($1, $2)', [
        migration.timestamp,
        migration.name,
      ]);
    });
  }
  return pending.map((migration) => migration.name);
}

/** Undo the newest one. Returns its name, or undefined. */
async function revert(pool) {
  const name = (await applied(pool)).at(-1);
  if (name === undefined) return undefined;
  const migration = available().find((candidate) => candidate.name === name);
  if (!migration) throw new Error(`${name} is applied, but is not in ${FOLDER}`);
  await transaction(pool, async (client) => {
    for (const statement of migration.down) await client.query(statement);
    await client.query('DELETE FROM "migrations" WHERE "name" = $1', [name]);
  });
  return name;
}

async function main(action) {
  const pool = createPool({ ...readDatabaseConfig(), poolSize: 1 });
  try {
    if (action === 'show') {
      const done = new Set(await applied(pool));
      for (const { name } of available()) console.log(`[${done.has(name) ? 'X' : ' '}] ${name}`);
    } else if (action === 'run') {
      const names = await run(pool);
      console.log(names.length ? names.map((name) => `applied ${name}`).join('\n') : 'No migrations are pending');
    } else if (action === 'revert') {
      const name = await revert(pool);
      console.log(name ? `reverted ${name}` : 'No migrations to revert');
    } else {
      console.error('usage: migrate.js show|run|revert');
      process.exitCode = 2;
    }
  } catch (error) {
    console.error(error.message);
    process.exitCode = 1;
  } finally {
    await pool.end();
  }
}

if (require.main === module) main(process.argv[2]);

module.exports = { available, applied, run, revert };
