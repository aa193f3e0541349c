# The S3 server of scripts/stack: Ceph radosgw on 127.0.0.1, one monitor and one disk in a file, no replicas. Sourced.
# shellcheck shell=bash disable=SC2154

wait_s=90

# Not those that the kernel gives to connections meanwhile: see the module.
free_ports() { PYTHONPATH=$PWD "$(working_python)" -c "from tests.support.ports import free_ports; print(*free_ports($1))"; }

# A pid may have been given again: only a process that was started with our configuration is ours.
is_ours() { grep -qszxF "CEPH_CONF=$directory/ceph.conf" "/proc/$1/environ"; }

write_configuration() {
  local fsid=$1 http=$2 mon2=$3 mon1=$4
  cat >"$directory/ceph.conf" <<CONF
[global]
fsid=$fsid
mon host=[v2:127.0.0.1:$mon2,v1:127.0.0.1:$mon1]
public addr=127.0.0.1
keyring=$directory/\$name.keyring
run dir=$directory/run
admin socket=$directory/run/\$name.asok
pid file=$directory/run/\$name.pid
log file=$directory/log/\$name.log
mon data=$directory/mon
osd data=$directory/osd
rgw data=$directory/rgw
osd pool default size=1
osd pool default min size=1
osd pool default pg num=8
osd pool default pg autoscale mode=off
mon allow pool size one=true
mon data avail crit=1
bluestore block size=10737418240
osd crush chooseleaf type=0
rgw frontends=beast endpoint=127.0.0.1:$http
CONF
}

start_daemons() {
  local http=$1 mon2=$2 mon1=$3 fsid osd key
  local root=(--setuser root --setgroup root)
  fsid=$(uuidgen) osd=$(uuidgen)
  write_configuration "$fsid" "$http" "$mon2" "$mon1"
  export CEPH_CONF=$directory/ceph.conf
  ceph-authtool -C "$directory/mon.keyring" --gen-key -n mon. --cap mon 'allow *'
  ceph-authtool -C "$directory/client.admin.keyring" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *'
  ceph-authtool "$directory/mon.keyring" --import-keyring "$directory/client.admin.keyring"
  monmaptool --create --fsid "$fsid" --addv a "[v2:127.0.0.1:$mon2,v1:127.0.0.1:$mon1]" "$directory/monmap"
  ceph-mon --mkfs -i a --monmap "$directory/monmap" --keyring "$directory/mon.keyring"
  cp "$directory/mon.keyring" "$directory/mon/keyring"
  ceph-mon -i a "${root[@]}"
  key=$(ceph-authtool --gen-print-key)
  echo "{\"cephx_secret\":\"$key\"}" | timeout "$wait_s" ceph osd new "$osd" -i -
  ceph-authtool -C "$directory/osd.0.keyring" -n osd.0 --add-key "$key"
  ceph-osd -i 0 --mkfs --osd-uuid "$osd" "${root[@]}"
  ceph-osd -i 0 "${root[@]}"
  timeout "$wait_s" ceph auth get-or-create client.rgw.a mon 'allow rw' osd 'allow rwx' \
    -o "$directory/client.rgw.a.keyring"
  radosgw -n client.rgw.a "${root[@]}"
  timeout "$wait_s" sh -c "until curl -so/dev/null 127.0.0.1:$http; do sleep .2; done"
}

write_environment() {
  local http=$1 access secret
  access=AK$(uuidgen | tr -d - | cut -c 1-18)
  secret=$(uuidgen | tr -d -)
  timeout "$wait_s" radosgw-admin user create --uid=volback --display-name=volback \
    --access-key="$access" --secret="$secret"
  cat >"$directory/env" <<ENV
export VOLBACK_S3_ENDPOINT=http://127.0.0.1:$http
export VOLBACK_S3_ADDRESSING=path
export AWS_ACCESS_KEY_ID=$access
export AWS_SECRET_ACCESS_KEY=$secret
ENV
}

radosgw_up() {
  [ "$(id -u)" = 0 ] || die "the S3 server needs root" "sudo scripts/stack up"
  [ ! -e "$directory" ] || die "$directory is there already" "scripts/stack down $directory"
  need_packages ceph-mon ceph-osd radosgw ceph-common uuid-runtime curl
  umask 077
  mkdir -p "$directory"/{mon,osd,rgw,run,log}
  touch "$directory/.volback-stack"
  local http mon2 mon1
  read -r http mon2 mon1 < <(free_ports 3)
  if ! (set -e; start_daemons "$http" "$mon2" "$mon1"; write_environment "$http") >"$directory/log/up.log" 2>&1; then
    tail -n 15 "$directory/log/up.log" >&2
    radosgw_down
    die "the S3 server did not start" "see the lines above"
  fi
  printf 'endpoint: http://127.0.0.1:%s\ncredentials: %s\n' "$http" "$directory/env"
}

radosgw_down() {
  [ -e "$directory/.volback-stack" ] || { say "no stack in $directory: nothing stopped"; return; }
  local name pid tries
  for name in client.rgw.a osd.0 mon.a; do
    pid=$(cat "$directory/run/$name.pid" 2>/dev/null) || continue
    is_ours "$pid" || continue
    kill "$pid"
    tries=100
    while is_ours "$pid"; do
      [ $((tries -= 1)) -gt 0 ] || { kill -KILL "$pid"; break; }
      sleep 0.1
    done
  done
  rm -rf "$directory"
}
