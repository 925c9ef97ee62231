#!/bin/sh
# Without arguments of its own redis-server is what runs. The official image is built with protected mode off.
set -e
case "${1:-}" in -* | *.conf | '') set -- redis-server "$@" ;; esac
if [ "$1" = redis-server ]; then set -- "$@" --protected-mode no; fi
exec "$@"
