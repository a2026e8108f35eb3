'use strict';

const { createHash, randomUUID } = require('node:crypto');
const bcrypt = require('bcryptjs');
const jwt = require('jsonwebtoken');
const { HttpError, cookie, readCookies, readJson } = require('./http');
const { Logger } = require('./logger');

const logger = new Logger('AuthService');
const audit = new Logger('AuditService');
const USER_QUERY = `
  SELECT u."id", u."email", u."password", u."firstName", u."lastName", u."isActive", u."organizationId",
         coalesce(array_agg(r."name") FILTER (WHERE r."name" IS NOT NULL), '{}') AS roles
  FROM "users" u
  LEFT JOIN "user_roles" ur ON ur."user_id" = u."id"
  LEFT JOIN "roles" r ON r."id" = ur."role_id"`;

const digest = (token) => createHash('sha256').update(token).digest('hex');
const publicUser = ({ id, email, firstName, lastName, organizationId, roles }) => ({
  id,
  email,
  firstName,
  lastName,
  organizationId,
  roles,
});

/** Logging in and out: short access tokens, and refresh tokens that can be used once. */
class AuthService {
  constructor({ pool, redis, config }) {
    this.pool = pool;
    this.redis = redis;
    this.jwt = config.jwt;
  }

  async findUser(column, value) {
    const found = await this.pool.query(`${USER_QUERY} WHERE u."${column}" = $1 GROUP BY u."id"`, [value]);
    return found.rows[0];
  }

  /** Who this is; null for a stranger, a wrong password, and, as in the real application, a database that fails. */
  async validate(email, password) {
    try {
      const user = await this.findUser('email', email.toLowerCase());
      if (!user || !user.isActive || !(await bcrypt.compare(password, user.password))) return null;
      await this.pool.query('UPDATE "users" SET "lastLogin" = now() WHERE "id" = $1', [user.id]);
      return user;
    } catch (error) {
      logger.error(`Login failed: ${error.message}`, error);
      return null;
    }
  }

  async issue(user, sessionId = randomUUID()) {
    const claims = { sub: user.id, email: user.email, roles: user.roles, organizationId: user.organizationId, sid: sessionId };
    const { accessSecret, refreshSecret, accessSeconds, refreshSeconds } = this.jwt;
    const accessToken = jwt.sign(claims, accessSecret, { expiresIn: accessSeconds, jwtid: randomUUID() });
    const refreshToken = jwt.sign({ sub: user.id, sid: sessionId }, refreshSecret, {
      expiresIn: refreshSeconds,
      jwtid: randomUUID(),
    });
    const session = JSON.stringify({ userId: user.id, createdAt: new Date().toISOString() });
    await this.redis.command('SET', `session:${sessionId}`, session, 'EX', refreshSeconds);
    await this.redis.command('SET', `refresh:${digest(refreshToken)}`, user.id, 'EX', refreshSeconds);
    await this.redis.command('SADD', `user_sessions:${user.id}`, sessionId);
    await this.redis.command('EXPIRE', `user_sessions:${user.id}`, refreshSeconds);
    return {
      body: { accessToken, refreshToken, expiresIn: accessSeconds, user: publicUser(user) },
      headers: {
        'Set-Cookie': [
          cookie('access_token', accessToken, accessSeconds),
          cookie('refresh_token', refreshToken, refreshSeconds),
        ],
      },
    };
  }

  async refresh(token) {
    let claims;
    try {
      claims = jwt.verify(token, this.jwt.refreshSecret);
    } catch {
      throw new HttpError(401, 'Invalid refresh token');
    }
    // Taking it away and looking at it is one step, so a token is good for one use, even if two come at once.
    const removed = await this.redis.command('DEL', `refresh:${digest(token)}`);
    if (removed !== 1) throw new HttpError(401, 'Invalid refresh token');
    const user = await this.findUser('id', claims.sub);
    if (!user || !user.isActive) throw new HttpError(401, 'Invalid refresh token');
    return this.issue(user, claims.sid);
  }

  /** The claims of the caller's access token, from the header or the cookie. */
  async authenticate(request) {
    const header = /^Bearer (.+)$/.exec(request.headers.authorization || '');
    const token = header ? header[1] : readCookies(request).access_token;
    if (!token) throw new HttpError(401, 'Unauthorized');
    let claims;
    try {
      claims = jwt.verify(token, this.jwt.accessSecret);
    } catch {
      throw new HttpError(401, 'Unauthorized');
    }
    if ((await this.redis.command('EXISTS', `blacklist:${claims.jti}`)) === 1) throw new HttpError(401, 'Unauthorized');
    return claims;
  }

  async logout(claims, refreshToken) {
    const left = Math.max(1, claims.exp - Math.floor(Date.now() / 1000));
    await this.redis.command('SET', `blacklist:${claims.jti}`, '1', 'EX', left);
    await this.redis.command('DEL', `session:${claims.sid}`);
    await this.redis.command('SREM', `user_sessions:${claims.sub}`, claims.sid);
    if (refreshToken) await this.redis.command('DEL', `refresh:${digest(refreshToken)}`);
  }
}

/** Login, refresh, logout and profile. */
function addAuthRoutes(router, { prefix, auth }) {
  router.add('POST', `${prefix}/auth/login`, async ({ request }) => {
    const { email, password } = await readJson(request);
    if (typeof email !== 'string' || !/^[^@\s]+@[^@\s]+$/.test(email)) throw new HttpError(400, 'email must be an email');
    if (typeof password !== 'string' || password === '') throw new HttpError(400, 'password should not be empty');
    const user = await auth.validate(email, password);
    audit.audit({ action: 'LOGIN', success: Boolean(user), userId: user ? user.id : null, resource: 'auth' });
    if (!user) throw new HttpError(401, 'Invalid credentials');
    return { status: 201, ...(await auth.issue(user)) };
  });

  router.add('POST', `${prefix}/auth/refresh`, async ({ request }) => {
    const body = await readJson(request);
    const token = readCookies(request).refresh_token || body.refreshToken;
    if (typeof token !== 'string' || token === '') throw new HttpError(401, 'Refresh token missing');
    return { status: 201, ...(await auth.refresh(token)) };
  });

  router.add('POST', `${prefix}/auth/logout`, async ({ request }) => {
    const claims = await auth.authenticate(request);
    const body = await readJson(request);
    await auth.logout(claims, readCookies(request).refresh_token || body.refreshToken);
    audit.audit({ action: 'LOGOUT', success: true, userId: claims.sub, resource: 'auth' });
    const headers = { 'Set-Cookie': [cookie('access_token', '', 0), cookie('refresh_token', '', 0)] };
    return { status: 201, body: { message: 'Logged out' }, headers };
  });

  router.add('GET', `${prefix}/auth/profile`, async ({ request }) => {
    const claims = await auth.authenticate(request);
    const user = await auth.findUser('id', claims.sub);
    if (!user) throw new HttpError(401, 'Unauthorized');
    return { body: publicUser(user) };
  });
}

module.exports = { AuthService, addAuthRoutes };
