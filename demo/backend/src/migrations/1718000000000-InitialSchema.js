'use strict';

module.exports = {
  up: [
    `CREATE TABLE "organizations" (
       "id" uuid PRIMARY KEY DEFAULT gen_random_uuid(),
       "name" varchar(200) NOT NULL,
       "isActive" boolean NOT NULL DEFAULT true,
       "createdAt" timestamptz NOT NULL DEFAULT now())`,
    `CREATE TABLE "users" (
       "id" uuid PRIMARY KEY DEFAULT gen_random_uuid(),
       "email" varchar(255) NOT NULL UNIQUE,
       "password" varchar(100) NOT NULL,
       "firstName" varchar(100) NOT NULL,
       "lastName" varchar(100) NOT NULL,
       "isActive" boolean NOT NULL DEFAULT true,
       "lastLogin" timestamptz,
       "organizationId" uuid NOT NULL REFERENCES "organizations" ("id"),
       "createdAt" timestamptz NOT NULL DEFAULT now(),
       "updatedAt" timestamptz NOT NULL DEFAULT now())`,
    `CREATE INDEX "IDX_users_organizationId" ON "users" ("organizationId")`,
    `CREATE TABLE "roles" (
       "id" uuid PRIMARY KEY DEFAULT gen_random_uuid(),
       "name" varchar(50) NOT NULL UNIQUE,
       "description" text)`,
    `CREATE TABLE "user_roles" (
       "user_id" uuid NOT NULL REFERENCES "users" ("id") ON DELETE CASCADE,
       "role_id" uuid NOT NULL REFERENCES "roles" ("id") ON DELETE CASCADE,
       PRIMARY KEY ("user_id", "role_id"))`,
    `CREATE INDEX "IDX_user_roles_role_id" ON "user_roles" ("role_id")`,
  ],
  down: ['DROP TABLE "user_roles"', 'DROP TABLE "roles"', 'DROP TABLE "users"', 'DROP TABLE "organizations"'],
};
