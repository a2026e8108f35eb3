'use strict';

const metrics = require('prom-client');

metrics.collectDefaultMetrics();

const requests = new metrics.Histogram({
  name: 'http_request_duration_seconds',
  help: 'Time from the request to the end of its answer, by method, route and status.',
  labelNames: ['method', 'route', 'status_code'],
  buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
});

/** The pool's own numbers, read when they are asked for. */
function observePool(pool) {
  const gauge = (name, help, read) =>
    new metrics.Gauge({
      name,
      help,
      collect() {
        this.set(read());
      },
    });
  gauge('database_pool_connections', 'Open connections of the pool.', () => pool.totalCount);
  gauge('database_pool_idle', 'Open connections that nobody uses.', () => pool.idleCount);
  gauge('database_pool_waiting', 'Requests that wait for a connection.', () => pool.waitingCount);
}

/** `/metrics`, outside the API's prefix: nginx does not pass it on. */
function addMetricsRoute(router) {
  router.add('GET', '/metrics', async () => ({
    body: await metrics.register.metrics(),
    type: metrics.register.contentType,
  }));
}

module.exports = { addMetricsRoute, observePool, observeRequest: (labels, took) => requests.observe(labels, took) };
