'use strict';

const http = require('node:http');
const { readConfig } = require('./config');
const { Logger } = require('./logger');

const logger = new Logger('NestApplication');
const DRAIN_MS = 5000;

/** Say why on stderr, and end the process so that its supervisor starts it again. */
function fail(message, error) {
  new Logger('Bootstrap').error(message, error);
  process.exit(1);
}

async function main() {
  let stop = () => process.exit(0); // until there is something to drain
  process.on('SIGTERM', () => stop('SIGTERM'));
  process.on('SIGINT', () => stop('SIGINT'));

  new Logger('NestFactory').log('Starting AlloDoc application...');
  let config;
  try {
    config = readConfig();
  } catch (error) {
    fail(error.message);
  }

  const { createPool, connect } = require('./database');
  const { connectRedis } = require('./cache');
  const { Router, createListener } = require('./http');
  const { addHealthRoutes } = require('./health');
  const { AuthService, addAuthRoutes } = require('./auth');
  const { addPatientRoutes } = require('./patients');
  const { addMetricsRoute, observePool, observeRequest } = require('./metrics');

  const pool = createPool(config.database);
  await connect(pool, config.database).catch((error) => fail(`Database unavailable: ${error.message}`, error));
  const redis = await connectRedis(config.redis, (error) => fail(`Redis connection lost: ${error.message}`, error));

  const router = new Router();
  const { prefix } = config;
  const auth = new AuthService({ pool, redis, config });
  addHealthRoutes(router, { prefix, pool, redis });
  addAuthRoutes(router, { prefix, auth });
  addPatientRoutes(router, { prefix, pool, auth });
  addMetricsRoute(router);
  observePool(pool);

  const server = http.createServer(createListener({ router, corsOrigin: config.corsOrigin, observe: observeRequest }));
  server.keepAliveTimeout = 65000; // longer than nginx keeps its own side open
  server.on('error', (error) => fail(`Cannot listen: ${error.message}`, error));
  server.listen(config.port, config.host, () => {
    for (const route of router.routes) new Logger('RouterExplorer').log(`Mapped {${route.path}, ${route.method}} route`);
    logger.log('Nest application successfully started');
    logger.log(`AlloDoc API listens on http://${config.host}:${config.port}${prefix} (${config.environment})`);
  });

  let stopping = false;
  stop = (signal) => {
    if (stopping) return;
    stopping = true;
    logger.log(`${signal} received: finishing requests`);
    setTimeout(() => process.exit(0), DRAIN_MS).unref();
    server.close(async () => {
      redis.close();
      await pool.end().catch(() => undefined);
      process.exit(0);
    });
    server.closeIdleConnections();
  };
}

process.on('unhandledRejection', (error) => fail(`Unhandled rejection: ${error && error.message}`, error));
main();
