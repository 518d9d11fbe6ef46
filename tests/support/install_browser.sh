#!/usr/bin/env bash
# Install what the tests of pages need: Chromium and node from Debian where they are missing, two packages of npm.
#
#   tests/support/install_browser.sh FOLDER      # prints nothing; FOLDER/node_modules holds the packages
#
# The packages are pinned by digest: another content than the one that was looked at is refused.
set -euo pipefail
FOLDER=$1
PACKAGES="
playwright-core 1.65.1 hqPpz7blSMPxWVdoeE1yiBSzXsKiVOd2k+kjCvmUywD2GPO2Dd9HfcWnq9NN0GHbNZDFgZ9JfBFr+X5/BLo0qw==
axe-core 4.14.1 FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==
"

missing=()
command -v chromium >/dev/null || missing+=(chromium)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
if [ ${#missing[@]} -gt 0 ]; then
  as_root=(); [ "$(id -u)" = 0 ] || as_root=(sudo)
  ${as_root[@]+"${as_root[@]}"} apt-get update -qq
  ${as_root[@]+"${as_root[@]}"} apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

mkdir -p "$FOLDER/node_modules"
cd "$FOLDER"
while read -r name version digest; do
  [ -n "$name" ] || continue
  [ -f "node_modules/$name/package.json" ] && continue
  npm pack --silent "$name@$version" >/dev/null
  found=$(openssl dgst -sha512 -binary "$name-$version.tgz" | base64 -w0)
  [ "$found" = "$digest" ] || { echo "error: $name $version has another content than its pin says" >&2; exit 1; }
  mkdir -p "node_modules/.new-$name"
  tar xzf "$name-$version.tgz" -C "node_modules/.new-$name" --strip-components 1
  mv "node_modules/.new-$name" "node_modules/$name"
  rm "$name-$version.tgz"
done <<< "$PACKAGES"
