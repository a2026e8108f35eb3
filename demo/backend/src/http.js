'use strict';

const { Logger } = require('./logger');

const logger = new Logger('ExceptionsHandler');
const BODY_LIMIT = 100 * 1024;
const ALLOWED_METHODS = 'GET,POST,PUT,PATCH,DELETE,OPTIONS';
const ALLOWED_HEADERS = 'Content-Type,Authorization,X-Organization-Id,X-CSRF-Token';

/** An answer other than success, with its status. */
class HttpError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The JSON object in the body of a request; an empty body is an empty object. */
async function readJson(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > BODY_LIMIT) throw new HttpError(413, 'request entity too large');
    chunks.push(chunk);
  }
  if (size === 0) return {};
  let body;
  try {
    body = JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch {
    throw new HttpError(400, 'the body is not JSON');
  }
  if (body === null || typeof body !== 'object' || Array.isArray(body)) throw new HttpError(400, 'the body is no object');
  return body;
}

/** Cookies of a request by name. */
function readCookies(request) {
  const cookies = {};
  for (const pair of (request.headers.cookie || '').split(';')) {
    const at = pair.indexOf('=');
    if (at > 0) cookies[pair.slice(0, at).trim()] = pair.slice(at + 1).trim();
  }
  return cookies;
}

/** A cookie for this site only, out of the reach of scripts. */
function cookie(name, value, maxAge) {
  return `${name}=${value}; Max-Age=${maxAge}; Path=/; HttpOnly; Secure; SameSite=Lax`;
}

/** A table of routes. A handler gets {request, params, query} and returns {status, body, headers, type}. */
class Router {
  constructor() {
    this.routes = [];
  }

  add(method, path, handler) {
    const pattern = new RegExp(`^${path.replace(/:(\w+)/g, '(?<$1>[^/]+)')}/?$`);
    this.routes.push({ method, path, pattern, handler });
  }

  find(method, pathname) {
    for (const route of this.routes) {
      const match = route.method === method && route.pattern.exec(pathname);
      if (match) return { route, params: { ...match.groups } };
    }
    return null;
  }
}

/** The listener for http.createServer: CORS, routing, errors, timing. */
function createListener({ router, corsOrigin, observe }) {
  const respond = (response, status, body, headers = {}, type = 'application/json; charset=utf-8') => {
    const content = body === undefined ? '' : type.startsWith('application/json') ? JSON.stringify(body) : body;
    response.writeHead(status, { 'Content-Type': type, 'Content-Length': Buffer.byteLength(content), ...headers });
    response.end(content);
  };

  return async function listen(request, response) {
    const started = process.hrtime.bigint();
    let routeName = 'unmatched';
    response.on('finish', () => {
      const took = Number(process.hrtime.bigint() - started) / 1e9;
      observe({ method: request.method, route: routeName, status_code: response.statusCode }, took);
    });
    // A fixed origin, whoever asks: the browser compares, and refuses a foreign page.
    response.setHeader('Access-Control-Allow-Origin', corsOrigin);
    response.setHeader('Access-Control-Allow-Credentials', 'true');
    response.setHeader('Vary', 'Origin');
    const url = new URL(request.url, 'http://backend');
    try {
      if (request.method === 'OPTIONS') {
        routeName = 'preflight';
        response.setHeader('Access-Control-Allow-Methods', ALLOWED_METHODS);
        response.setHeader('Access-Control-Allow-Headers', ALLOWED_HEADERS);
        response.writeHead(204, { 'Content-Length': 0 });
        response.end();
        return;
      }
      const found = router.find(request.method, url.pathname);
      if (!found) {
        logger.error(`Cannot ${request.method} ${url.pathname}`);
        throw new HttpError(404, `Cannot ${request.method} ${url.pathname}`);
      }
      routeName = found.route.path;
      const answer = await found.route.handler({ request, params: found.params, query: url.searchParams });
      respond(response, answer.status || 200, answer.body, answer.headers, answer.type);
    } catch (error) {
      const status = error instanceof HttpError ? error.status : 500;
      if (status === 500) logger.error(`${request.method} ${url.pathname}: ${error.message}`, error);
      const message = status === 500 ? 'Internal server error' : error.message;
      respond(response, status, { statusCode: status, message, path: url.pathname, timestamp: new Date().toISOString() });
    }
  };
}

module.exports = { HttpError, Router, cookie, createListener, readCookies, readJson };
