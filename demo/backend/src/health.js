'use strict';

/** Ask a dependency, and say how long it took or why it failed. Never throws. */
async function probe(ask) {
  const started = Date.now();
  try {
    await ask();
    return { status: 'up', responseTime: Date.now() - started };
  } catch (error) {
    return { status: 'down', error: error.message || error.code || String(error) };
  }
}

/** The health routes. They answer 200 in every case: the body tells. */
function addHealthRoutes(router, { prefix, pool, redis }) {
  const examine = async () => {
    const [database, cache] = await Promise.all([
      probe(() => pool.query('SELECT 1')),
      probe(() => redis.command('SET', 'health:check', Date.now(), 'EX', 1)),
    ]);
    return { database, redis: cache, well: database.status === 'up' && cache.status === 'up' };
  };
  const report = ({ database, redis: cache, well }) => ({
    status: well ? 'healthy' : 'unhealthy',
    timestamp: new Date().toISOString(),
    uptime: process.uptime(),
    services: { database, redis: cache },
  });

  router.add('GET', `${prefix}/health`, async () => ({ body: report(await examine()) }));
  router.add('GET', `${prefix}/ready`, async () => {
    const found = await examine();
    return { body: { ready: found.well, ...report(found) } };
  });
  router.add('GET', `${prefix}/live`, async () => ({
    body: { status: 'alive', timestamp: new Date().toISOString(), uptime: process.uptime() },
  }));
}

module.exports = { addHealthRoutes };
