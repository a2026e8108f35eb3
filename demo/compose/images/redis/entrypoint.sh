#!/bin/sh
# As the official image: give up root, listen on the container's network.
set -eu
if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
    chown redis:redis /data
    exec setpriv --reuid=redis --regid=redis --clear-groups "$0" "$@"
fi
if [ "$1" = redis-server ]; then
    shift
    set -- redis-server --dir /data --bind 0.0.0.0 --protected-mode no "$@"
fi
exec "$@"
