'use strict';

const { HttpError, readJson } = require('./http');
const { Logger } = require('./logger');

const audit = new Logger('AuditService');
const COLUMNS = '"id", "medicalRecordNumber", "firstName", "lastName", "dateOfBirth", "organizationId", "createdAt"';
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** A whole number of the query string within bounds, or its default. */
function bounded(query, name, fallback, most) {
  const value = Number(query.get(name) || fallback);
  if (!Number.isInteger(value) || value < 1 || value > most) throw new HttpError(400, `${name} must be 1 to ${most}`);
  return value;
}

/** Patients of the caller's organization: list, one, create. */
function addPatientRoutes(router, { prefix, pool, auth }) {
  router.add('GET', `${prefix}/patients`, async ({ request, query }) => {
    const claims = await auth.authenticate(request);
    const page = bounded(query, 'page', 1, 100000);
    const limit = bounded(query, 'limit', 20, 100);
    const [rows, total] = await Promise.all([
      pool.query(
        `SELECT ${COLUMNS} FROM "patients" WHERE "organizationId" = $1 ORDER BY "lastName", "id" LIMIT $2 OFFSET $3`,
        [claims.organizationId, limit, (page - 1) * limit],
      ),
      pool.query('SELECT count(*)::int AS total FROM "patients" WHERE "organizationId" = $1', [claims.organizationId]),
    ]);
    return { body: { data: rows.rows, total: total.rows[0].total, page, limit } };
  });

  router.add('GET', `${prefix}/patients/:id`, async ({ request, params }) => {
    const claims = await auth.authenticate(request);
    if (!UUID.test(params.id)) throw new HttpError(400, 'id must be a UUID');
    const found = await pool.query(`SELECT ${COLUMNS} FROM "patients" WHERE "id" = $1 AND "organizationId" = $2`, [
      params.id,
      claims.organizationId,
    ]);
    if (found.rows.length === 0) throw new HttpError(404, 'Patient not found');
    audit.audit({ action: 'READ', success: true, userId: claims.sub, resource: 'patient', resourceId: params.id });
    return { body: found.rows[0] };
  });

  router.add('POST', `${prefix}/patients`, async ({ request }) => {
    const claims = await auth.authenticate(request);
    const { firstName, lastName, dateOfBirth } = await readJson(request);
    for (const [name, value] of Object.entries({ firstName, lastName })) {
      if (typeof value !== 'string' || value.trim() === '') throw new HttpError(400, `${name} should not be empty`);
    }
    if (!/^\d{4}-\d{2}-\d{2}$/.test(dateOfBirth) || Number.isNaN(Date.parse(dateOfBirth))) {
      throw new HttpError(400, 'dateOfBirth must be a date');
    }
    const created = await pool.query(
      `INSERT INTO "patients" ("firstName", "lastName", "dateOfBirth", "organizationId") VALUES ($1, $2, $3, $4)
       RETURNING ${COLUMNS}`,
      [firstName.trim(), lastName.trim(), dateOfBirth, claims.organizationId],
    );
    const patient = created.rows[0];
    audit.audit({ action: 'CREATE', success: true, userId: claims.sub, resource: 'patient', resourceId: patient.id });
    return { status: 201, body: patient };
  });
}

module.exports = { addPatientRoutes };
