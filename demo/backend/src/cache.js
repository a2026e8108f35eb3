'use strict';

const { createClient } = require('@redis/client');
const { Logger } = require('./logger');

const logger = new Logger('RedisService');

/**
 * A connected client. Losing the connection calls `onLost` once: the application can't do without.
 * A refused password is only logged: commands then fail, and the health check says why.
 */
async function connectRedis(config, onLost) {
  const client = createClient({
    RESP: 2,
    disableClientInfo: true,
    socket: { host: config.host, port: config.port, connectTimeout: 5000, reconnectStrategy: false },
  });
  let closing = false;
  let lost = false;
  const lose = (error) => {
    if (closing || lost) return;
    lost = true;
    onLost(error);
  };
  client.on('error', lose);
  client.on('end', () => lose(new Error('connection closed')));
  await client.connect().catch(lose);
  if (config.password && !lost) {
    await client.sendCommand(['AUTH', config.password]).catch((error) => {
      if (/without any password configured/.test(error.message)) {
        logger.warn('This Redis server does not require a password, but a password was supplied.');
      } else {
        logger.error(`Redis refused the password: ${error.message}`);
      }
    });
  }
  return {
    command: (...parts) => client.sendCommand(parts.map(String)),
    close: () => {
      closing = true;
      client.destroy();
    },
  };
}

module.exports = { connectRedis };
