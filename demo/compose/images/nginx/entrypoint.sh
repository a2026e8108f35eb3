#!/bin/sh
# A certificate for a first start; one that is mounted at /etc/nginx/tls is kept.
set -eu
if [ ! -s /etc/nginx/tls/server.crt ]; then
    mkdir -p /etc/nginx/tls
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 \
        -subj "/CN=app.allodoc.com" -addext "subjectAltName=DNS:app.allodoc.com,DNS:localhost,IP:127.0.0.1" \
        -keyout /etc/nginx/tls/server.key -out /etc/nginx/tls/server.crt 2>/dev/null
fi
exec "$@"
