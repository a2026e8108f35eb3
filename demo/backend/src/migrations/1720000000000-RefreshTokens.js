'use strict';

module.exports = {
  up: [
    `CREATE TABLE "refresh_tokens" (
       "id" uuid PRIMARY KEY DEFAULT gen_random_uuid(),
       "userId" uuid NOT NULL REFERENCES "users" ("id") ON DELETE CASCADE,
       "tokenHash" varchar(64) NOT NULL UNIQUE,
       "expiresAt" timestamptz NOT NULL,
       "isRevoked" boolean NOT NULL DEFAULT false,
       "createdAt" timestamptz NOT NULL DEFAULT now())`,
    `CREATE INDEX "IDX_refresh_tokens_userId" ON "refresh_tokens" ("userId")`,
  ],
  down: ['DROP TABLE "refresh_tokens"'],
};
