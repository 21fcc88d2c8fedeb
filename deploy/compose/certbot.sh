#!/bin/sh
# What the certbot service of tls.yml runs.
#
#   certbot.sh OPTION...      gets the first certificate of LB_TLS_NAME; the options are certbot's
#   certbot.sh                renews it in time, for ever
set -eu

# certbot calls this when it has a certificate: see --deploy-hook.
if [ -n "${RENEWED_LINEAGE:-}" ]; then
  # Each file appears whole or not at all; nginx waits until the two belong together.
  umask 077
  for name in privkey.pem fullchain.pem; do
    cp "$RENEWED_LINEAGE/$name" "/certificates/.$name"
    mv -f "/certificates/.$name" "/certificates/$name"
  done
  exit
fi

if [ $# -gt 0 ]; then
  exec certbot certonly --webroot --webroot-path /acme --domain "$LB_TLS_NAME" \
    --non-interactive --keep-until-expiring --deploy-hook "sh /etc/naru/certbot.sh" "$@"
fi

# What fails is tried again next time; a certificate is renewed weeks before its end.
while :; do
  certbot renew || true
  sleep 12h
done
