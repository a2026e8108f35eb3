'use strict';

const { Pool } = require('pg');
const { Logger } = require('./logger');

const logger = new Logger('TypeOrmModule');

/** A pool of connections with the real application's limits: 5 s to connect, 30 s for a statement. */
function createPool(config) {
  const pool = new Pool({
    host: config.host,
    port: config.port,
    user: config.user,
    password: config.password,
    database: config.name,
    ssl: config.ssl,
    max: config.poolSize,
    connectionTimeoutMillis: 5000,
    statement_timeout: 30000,
    query_timeout: 15000, // the server's own limit is of no use when the server is frozen
    idleTimeoutMillis: 60000,
    application_name: 'allodoc-backend',
  });
  // Idle connections that the server closes: the next query opens a new one.
  pool.on('error', (error) => logger.warn(`Connection lost: ${error.message}`));
  return pool;
}

/** Wait until the schema answers. Throws the last error when all attempts have failed. */
async function connect(pool, config) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      await pool.query('SELECT "id", "isActive" FROM "users" LIMIT 1');
      return;
    } catch (error) {
      logger.error(`Unable to connect to the database. Retrying (${attempt})...`, error);
      if (attempt >= config.retryAttempts) throw error;
      await new Promise((resolve) => setTimeout(resolve, config.retryDelayMs));
    }
  }
}

/** Run `work` with one client inside a transaction. */
async function transaction(pool, work) {
  const client = await pool.connect();
  try {
    await client.query('BEGIN');
    const result = await work(client);
    await client.query('COMMIT');
    client.release();
    return result;
  } catch (error) {
    await client.query('ROLLBACK').catch(() => undefined);
    client.release(error);
    throw error;
  }
}

module.exports = { createPool, connect, transaction };
