#!/bin/sh
# Makes the secrets that deploy/compose.yaml asks for: deploy/secrets.sh
#
# In deploy/.env, which only its owner may read, and which it never changes: without its key what is stored sealed is
# lost. Keep a copy of the key apart from the database's backups.
set -eu
file=$(dirname "$0")/.env
if test -e "$file"; then
  echo "$file is there already; it is left as it is." >&2
  exit 0
fi
random() { head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }
umask 077
draft="$file.$$"
cat > "$draft" <<END
POSTGRES_PASSWORD=$(random)
CHURNGUARD_SERVICE_PASSWORD=$(random)
REDIS_PASSWORD=$(random)
INTEGRATION_ENCRYPTION_KEY=$(head -c 32 /dev/urandom | base64 | tr '+/' '-_')
END
mv "$draft" "$file"
echo "The secrets are in $file. Keep a copy of INTEGRATION_ENCRYPTION_KEY where the database's backups are not." >&2
