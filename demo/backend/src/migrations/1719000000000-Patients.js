'use strict';

module.exports = {
  up: [
    `CREATE SEQUENCE "medical_record_numbers" START 100001`,
    `CREATE TABLE "patients" (
       "id" uuid PRIMARY KEY DEFAULT gen_random_uuid(),
       "medicalRecordNumber" varchar(20) NOT NULL UNIQUE
         DEFAULT 'DEMO-' || nextval('medical_record_numbers')::text,
       "firstName" varchar(100) NOT NULL,
       "lastName" varchar(100) NOT NULL,
       "dateOfBirth" date NOT NULL,
       "organizationId" uuid NOT NULL REFERENCES "organizations" ("id"),
       "createdAt" timestamptz NOT NULL DEFAULT now(),
       "updatedAt" timestamptz NOT NULL DEFAULT now())`,
    `CREATE INDEX "IDX_patients_organizationId_lastName" ON "patients" ("organizationId", "lastName", "id")`,
    `CREATE TABLE "appointments" (
       "id" uuid PRIMARY KEY DEFAULT gen_random_uuid(),
       "patientId" uuid NOT NULL REFERENCES "patients" ("id") ON DELETE CASCADE,
       "doctorId" uuid NOT NULL REFERENCES "users" ("id"),
       "startsAt" timestamptz NOT NULL,
       "status" varchar(20) NOT NULL DEFAULT 'scheduled')`,
    `CREATE INDEX "IDX_appointments_patientId" ON "appointments" ("patientId")`,
    `CREATE INDEX "IDX_appointments_doctorId_startsAt" ON "appointments" ("doctorId", "startsAt")`,
  ],
  down: ['DROP TABLE "appointments"', 'DROP TABLE "patients"', 'DROP SEQUENCE "medical_record_numbers"'],
};
