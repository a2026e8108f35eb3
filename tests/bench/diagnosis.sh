#!/bin/sh
# What an operator without this suite types: the guide's diagnosis commands that end by themselves and change nothing,
# one after another on the Docker host. `make bench` runs them against the Docker bed, as a contestant; nobody reads
# what they print. Some fail on a sound stack, which is the guide's affair: they cost their time all the same.
# API: the backend's address; EDGE: host:port of nginx' TLS; PROJECT: the folder of the deployment.
cd "$PROJECT" || exit 1

in_database() { docker exec allodoc_postgres_prod psql -U allodoc_prod -d allodoc_prod -c "$1"; }
cache() { docker exec allodoc_redis_prod redis-cli "$@"; }
backend() { docker exec allodoc_backend_prod "$@"; }
backend_log() { docker logs allodoc_backend_prod 2>&1; }

# services
docker ps --filter name=allodoc_
docker logs allodoc_backend_prod --tail 50
docker logs allodoc_frontend_prod --tail 50
netstat -tulpn | grep :3000
netstat -tulpn | grep :4200
ls -la backend/.env* frontend/.env*
backend env | grep -cE 'DATABASE_|JWT_|REDIS_'
docker exec allodoc_postgres_prod pg_isready
in_database 'SELECT 1'
free -h
df -h
docker stats --no-stream
docker ps --all --filter name=allodoc_
docker logs allodoc_backend_prod --since 10m
ls -la /var/crash/
backend_log | grep -A 10 -B 10 'Error:'
grep -c 'mem_limit\|cpus' docker-compose.prod.yml

# database
docker ps | grep postgres
docker logs allodoc_postgres_prod --tail 20
backend pg_isready -h allodoc_postgres_prod -p 5432 -U allodoc_prod
backend env | grep -c DATABASE
docker exec allodoc_postgres_prod netstat -ln | grep 5432
in_database "SELECT count(*), current_setting('max_connections') FROM pg_stat_activity"
in_database 'SELECT query, calls, mean_exec_time FROM pg_stat_statements ORDER BY mean_exec_time DESC LIMIT 10'
in_database 'SELECT pid, pg_blocking_pids(pid), query FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0'
in_database "SELECT tablename, attname, n_distinct FROM pg_stats WHERE schemaname = 'public' AND n_distinct > 100"
in_database "SELECT pid, now() - query_start, query FROM pg_stat_activity WHERE state = 'active'"
docker logs allodoc_postgres_prod 2>&1 | grep 'duration:'
in_database "SELECT relname, pg_size_pretty(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r'"
docker logs allodoc_postgres_prod 2>&1 | grep -iE 'error|fatal|panic'

# performance
docker logs allodoc_nginx_prod --tail 1000 2>&1 | awk '{print $NF}' | sort -n | tail -20
curl -s "$API/metrics" | grep http_request_duration
cache ping
cache info stats
docker stats --no-stream
free -h
backend node -e 'console.log(process.memoryUsage())'
docker stats --no-stream
top -bn1 | head -20
backend_log | grep -i 'loop\|infinite\|recursion'

# authentication
backend_log | grep -i 'auth\|login\|jwt'
backend env | grep -c JWT
in_database "SELECT email FROM users WHERE email = 'doctor@example.test'"
backend node -e 'const b = require("bcryptjs"); console.log(b.compareSync("x", b.hashSync("x", 10)))'
backend env | grep -c 'JWT_.*SECRET'
backend env | grep -c REFRESH
cache --scan --pattern '*token*'
cache ttl refresh_token

# network
curl -s "$API/health"
curl -s -X OPTIONS -H 'Origin: http://localhost:4200' -H 'Access-Control-Request-Method: POST' "$API/api/v1/auth/login"
docker exec allodoc_nginx_prod nginx -t
backend grep -rl cors /app/src/
docker exec allodoc_nginx_prod cat /etc/nginx/nginx.conf | grep -A 10 upstream
openssl s_client -connect "$EDGE" -servername app.allodoc.com </dev/null
openssl s_client -connect "$EDGE" </dev/null 2>/dev/null | openssl x509 -noout -dates

# deployment
tail -n 50 /var/log/deploy.log
git status
git log --oneline -5
backend npm run migration:show
diff backend/.env.production backend/.env.example
curl -sf "$API/health"

# logs and resources
df -h
free -h
docker stats --no-stream
backend_log | grep -i error | tail -20
docker logs allodoc_nginx_prod 2>&1 | awk '{print $1}' | sort | uniq -c | sort -rn | head -20
curl -s -o /dev/null -w '%{time_namelookup} %{time_connect} %{time_starttransfer} %{time_total}' "$API/api/v1/auth/profile"
exit 0
