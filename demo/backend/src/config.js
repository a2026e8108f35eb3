'use strict';

/** Seconds in a duration such as 15m or 7d. */
function seconds(duration) {
  const match = /^(\d+)([smhd]?)$/.exec(duration);
  if (!match) throw new Error(`not a duration: ${duration}`);
  return Number(match[1]) * { '': 1, s: 1, m: 60, h: 3600, d: 86400 }[match[2]];
}

/**
 * Settings from the environment. Most have silent defaults, as the real application's do;
 * what is required and missing is an error that names every variable at once.
 */
function readConfig(env = process.env) {
  const wrong = ['JWT_ACCESS_SECRET', 'JWT_REFRESH_SECRET'].filter((name) => (env[name] || '').length < 32);
  if (wrong.length > 0) {
    throw new Error(`Configuration error: ${wrong.join(' and ')} must be set and at least 32 characters long`);
  }
  return {
    environment: env.NODE_ENV || 'development',
    host: env.HOST || '127.0.0.1',
    port: Number(env.PORT || 3000),
    prefix: `/${env.API_PREFIX || 'api/v1'}`,
    corsOrigin: env.CORS_ORIGIN || 'http://localhost:4200',
    bcryptRounds: Number(env.BCRYPT_ROUNDS || 12),
    jwt: {
      accessSecret: env.JWT_ACCESS_SECRET,
      refreshSecret: env.JWT_REFRESH_SECRET,
      accessSeconds: seconds(env.JWT_ACCESS_EXPIRATION || '15m'),
      refreshSeconds: seconds(env.JWT_REFRESH_EXPIRATION || '7d'),
    },
    database: readDatabaseConfig(env),
    redis: {
      host: env.REDIS_HOST || '127.0.0.1',
      port: Number(env.REDIS_PORT || 6379),
      password: env.REDIS_PASSWORD || '',
    },
  };
}

/** The part that the migrations need too. */
function readDatabaseConfig(env = process.env) {
  return {
    host: env.DATABASE_HOST || '127.0.0.1',
    port: Number(env.DATABASE_PORT || 5432),
    user: env.DATABASE_USERNAME || 'allodoc_prod',
    password: env.DATABASE_PASSWORD || '',
    name: env.DATABASE_NAME || 'allodoc_prod',
    ssl: env.DATABASE_SSL === 'true' ? { rejectUnauthorized: false } : false,
    poolSize: Number(env.DATABASE_POOL_SIZE || 10),
    retryAttempts: Number(env.DATABASE_RETRY_ATTEMPTS || 10),
    retryDelayMs: Number(env.DATABASE_RETRY_DELAY_MS || 3000),
  };
}

module.exports = { readConfig, readDatabaseConfig };
