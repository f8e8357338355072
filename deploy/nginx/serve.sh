#!/bin/sh
# nginx with the configuration in the folder $1, read again whenever `prepare` has written another or
# `certify` another certificate.
set -eu
configuration=$1/nginx.conf
certificate=$2/server.crt

written() { cat "$configuration" "$certificate" | cksum; }

loaded=$(written)
nginx -e stderr -c "$configuration" -g "daemon off;" &
nginx=$!
trap 'kill -QUIT "$nginx"' TERM INT QUIT
while kill -0 "$nginx" 2>/dev/null; do
    sleep 2 &
    wait $! || true
    now=$(written) || continue
    if [ "$now" != "$loaded" ] && kill -HUP "$nginx" 2>/dev/null; then
        loaded=$now
    fi
done
wait "$nginx"
