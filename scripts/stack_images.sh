# Images made from Debian packages, where no image registry can be reached. Sourced, never run.
# shellcheck shell=bash

# Not among volback's own labels, `volback.*`, as containers inherit it and volback reads theirs.
image_label=volback-test-image

# unpack_packages ROOT PACKAGE...: the packages with all that they depend on, unpacked into ROOT; none is installed.
# They are resolved against an empty dpkg status, so that nothing counts as there already, and no maintainer script runs.
unpack_packages() {
  local root=$1 debs deb status=0
  shift
  debs=$(mktemp -d)
  mkdir -p "$debs/partial" "$root"
  : >"$debs/status"
  quietly apt-get -qq update &&
    quietly apt-get -qq -y --no-install-recommends --download-only -o Dir::State::status="$debs/status" \
      -o Dir::Cache::archives="$debs" -o APT::Sandbox::User=root -o Debug::NoLocking=1 install "$@" &&
    for deb in "$debs"/*.deb; do dpkg --fsys-tarfile "$deb" || return; done |
    tar -C "$root" -x -i -f - --keep-directory-symlink --exclude './usr/share/doc/*' --exclude './usr/share/man/*' \
      --exclude './usr/share/locale/*' || status=$?
  rm -rf "$debs"
  return $status
}

# make_image NAME:TAG RECIPE PACKAGE... -- DOCKER_IMPORT_OPTION...: RECIPE is a function that gets the root and finishes
# it. The image has two names, NAME:TAG and one that carries the hash of all that it is made from.
make_image() {
  local name=$1 recipe=$2 packages=() hash exact root
  shift 2
  while [ "$1" != -- ]; do packages+=("$1") && shift; done
  shift
  hash=$({ declare -f unpack_packages make_image trim add_shell add_user "$recipe" &&
    printf '%s\n' "$image_label" "${packages[@]}" "$@"; } | sha256sum | cut -c 1-12)
  exact=$name-$hash
  if ! docker image inspect "$exact" >/dev/null 2>&1; then
    say "making the image $name from Debian packages"
    root=$(mktemp -d)
    if ! { unpack_packages "$root" "${packages[@]}" && "$recipe" "$root" &&
      tar -C "$root" --numeric-owner -c . | docker import "$@" -c "LABEL $image_label=$name" - "$exact" >/dev/null; }; then
      rm -rf "$root"
      die "the image $name could not be made" "see the lines above"
    fi
    rm -rf "$root"
  fi
  docker tag "$exact" "$name"
}

# A shell and a few programs: busybox, as whole coreutils would bring much along.
add_shell() {
  local root=$1 busybox program
  busybox=$(cd "$root" && find . -path '*bin/busybox' -type f | head -n 1)
  mkdir -p "$root/bin" "$root/tmp" "$root/etc" "$root/proc" "$root/dev" "$root/sys"
  chmod 1777 "$root/tmp"
  for program in sh cat chmod cp env id kill ls mkdir mv ps rm sleep; do ln -sf "${busybox#.}" "$root/bin/$program"; done
}

# Perl (for Debian's wrappers), the compiler of queries, character sets: most of the bytes, and of no use here.
trim() {
  rm -rf "$1"/usr/share/{perl*,i18n} "$1"/usr/lib/*/{perl*,gconv,libperl*,libLLVM*,libz3*} \
    "$1"/usr/lib/postgresql/*/lib/{llvmjit.so,bitcode}
}

# add_user ROOT NAME HOME: with the id that the usual images have, 999.
add_user() {
  printf 'root:x:0:0:root:/root:/bin/sh\n%s:x:999:999::%s:/bin/sh\n' "$2" "$3" >"$1/etc/passwd"
  printf 'root:x:0:\n%s:x:999:\n' "$2" >"$1/etc/group"
  mkdir -p "$1$3"
  chown -R 999:999 "$1$3"
}

postgres_recipe() {
  local root=$1
  trim "$root"
  add_shell "$root"
  add_user "$root" postgres /var/lib/postgresql
  cat >"$root/bin/serve" <<'SERVE'
#!/bin/sh
# A cluster is made where there is none, and served; it trusts everybody: for tests.
set -e
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --auth=trust --username=postgres --encoding=UTF8 --locale=C --data-checksums --no-sync --no-instructions
  echo 'host all all all trust' >>"$PGDATA/pg_hba.conf"
fi
exec postgres -c listen_addresses='*' -c unix_socket_directories=/tmp "$@"
SERVE
  chmod 755 "$root/bin/serve"
}

redis_recipe() {
  trim "$1"
  add_shell "$1"
  add_user "$1" redis /data
}

# The character sets are written into the server; these files are for others.
mariadb_recipe() {
  local root=$1 program
  trim "$root"
  for program in "$root"/usr/bin/*; do
    case ${program##*/} in mariadb | mariadb-check | mariadb-dump | busybox) ;; *) rm -f "$program" ;; esac
  done
  rm -rf "$root"/usr/share/mysql/{charsets,fill_help_tables.sql}
  add_shell "$root"
  add_user "$root" mysql /var/lib/mysql
  rm -rf "$root/etc/mysql"
  cat >"$root/etc/my.cnf" <<'CONFIGURATION'
[mariadbd]
datadir=/var/lib/mysql/data
socket=/tmp/mariadb.sock
skip-networking
innodb-log-file-size=8M
innodb-use-native-aio=0
[client]
socket=/tmp/mariadb.sock
user=root
CONFIGURATION
  cat >"$root/bin/serve" <<'SERVE'
#!/bin/sh
# System tables are made where there are none, and all is served, on a socket in the container alone: for tests.
set -e
cd /usr/share/mysql
if [ ! -d /var/lib/mysql/data ]; then
  mkdir /var/lib/mysql/data
  { printf '%s;\n' 'CREATE DATABASE mysql' 'USE mysql' 'SET @skip_auth_anonymous = 1' 'CREATE DATABASE test'
    cat mysql_system_tables.sql mysql_system_tables_data.sql; } | mariadbd --bootstrap
fi
exec mariadbd "$@"
SERVE
  chmod 755 "$root/bin/serve"
}

# What a slim Python image has, as far as the Dockerfile needs it, and the packages that it would install.
base_recipe() {
  mkdir -p "$1"/{tmp,root,proc,dev,sys,etc}
  chmod 1777 "$1/tmp"
  [ -e "$1/bin/sh" ] || ln -s dash "$1/bin/sh"
  printf 'root:x:0:0:root:/root:/bin/sh\n' >"$1/etc/passwd"
  printf 'root:x:0:\n' >"$1/etc/group"
}

need_docker() {
  [ "$(id -u)" = 0 ] || die "images are made as root, for their files' owners" "sudo scripts/stack images"
  command -v docker >/dev/null || die "there is no docker program" "scripts/ensure-docker"
}

base_make() {
  need_docker
  make_image volback-test-base:1 base_recipe base-files bash python3 python3-venv dash coreutils findutils tar zstd libc-bin \
    ca-certificates -- -c 'ENV PATH=/usr/local/bin:/usr/bin:/bin'
}

images_make() {
  need_docker
  make_image volback-test-postgres:15 postgres_recipe postgresql-15 busybox-static -- \
    -c 'USER 999:999' -c 'ENV PGDATA=/var/lib/postgresql/data' -c 'ENV PGHOST=/tmp' -c 'ENV PGUSER=postgres' \
    -c 'ENV PATH=/usr/lib/postgresql/15/bin:/usr/bin:/bin' -c 'CMD ["serve"]'
  make_image volback-test-redis:7 redis_recipe redis-server busybox-static -- \
    -c 'USER 999:999' -c 'ENV PATH=/usr/bin:/bin' -c 'WORKDIR /data' \
    -c 'CMD ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--appendonly", "yes"]'
  make_image volback-test-mariadb:10 mariadb_recipe mariadb-server-core mariadb-client busybox-static -- \
    -c 'USER 999:999' -c 'ENV PATH=/usr/sbin:/usr/bin:/bin' -c 'CMD ["serve"]'
}

images_remove() {
  local name
  docker image ls --filter "label=$image_label" --format '{{.Repository}}:{{.Tag}}' | while read -r name; do
    docker image rm "$name" >/dev/null && say "removed $name"
  done
}
