#!/bin/sh
# Fills in the files beside it and runs nginx with them: in docker-compose.yml, under `npm start -- --replicas N`
# and on a host of your own, with nginx 1.22 or newer.
#
#   balancer.sh start DIR     writes the configuration into DIR, tests it, becomes nginx
#   balancer.sh check DIR     tells what is wrong with the settings, and starts nothing
#   balancer.sh reload DIR    writes it anew and has the nginx of DIR take it over; it finishes what it has
#   balancer.sh refresh DIR   takes over only the list in LB_REPLICAS_FILE, at once; `start` looks at it every quarter second
#
# Everything is set by environment variables; deploy/README.md has a table of them. A wrong one stops the start,
# or leaves a running nginx as it is, with one message that names every mistake.
set -eu
# Debian keeps nginx where a plain user's PATH doesn't lead.
PATH=$PATH:/usr/sbin:/usr/local/sbin

here=$(cd "$(dirname "$0")" && pwd)
nl='
'
problems=''
known_settings=' '

usage() {
  sed -n '2,/^# or leaves/s/^# \{0,1\}//p' "$0" >&2
  exit 2
}

problem() { problems="$problems  $1$nl"; }

# fail_if_wrong: every mistake at once.
fail_if_wrong() {
  [ -n "$problems" ] || return 0
  printf "Naru's nginx can't %s:\n%sdeploy/README.md lists every setting.\n" "$verb" "$problems" >&2
  exit 1
}

# setting NAME DEFAULT REGEX EXPECTED: sets NAME to its default where it is empty, as compose files pass `NAME:` on.
setting() {
  known_settings="$known_settings$1 "
  eval "held=\${$1:-}"
  [ -n "$held" ] || held=$2
  # A default needs no look, and there are many.
  if [ "$held" = "$2" ] || printf '%s\n' "$(printf '%s' "$held" | tr '\n' ' ')" | grep -Eqx "$3"; then
    eval "$1=\$held"
  else
    problem "$1 holds \"$held\"; expected $4"
    eval "$1=\$2"
  fi
  export "${1?}"
}

# at_least VERSION: is this nginx as new as that?
at_least() {
  awk -v have="$version" -v need="$1" 'BEGIN {
    split(have, h, "."); split(need, n, ".")
    for (i = 1; i <= 3; i++) if (h[i] + 0 != n[i] + 0) exit h[i] + 0 < n[i] + 0
  }'
}

# addresses NAME: the items of a list of addresses and networks, one per line.
addresses() {
  eval "printf '%s\n' \"\$$1\"" | tr ', ' '\n\n' | sed '/^$/d'
}

check_addresses() {
  for item in $(addresses "$1"); do
    printf '%s' "$item" | grep -Eqx '([0-9]{1,3}\.){3}[0-9]{1,3}(/[0-9]{1,2})?|[0-9a-fA-F:]*:[0-9a-fA-F:.]*(/[0-9]{1,3})?' ||
      problem "$1 holds \"$item\"; expected addresses or networks such as 10.0.0.0/8, parted by commas"
  done
}

# servers NAME LIST: nginx's `server` lines for a list of replicas, which NAME holds. Lines that begin with "!" are problems.
servers() {
  printf '%s\n' "$2" | tr '\n' ',' | awk -v RS=, -v name="$1" -v algorithm="$LB_ALGORITHM" \
    -v common="max_fails=$LB_MAX_FAILS fail_timeout=$LB_FAIL_TIMEOUT" -v conns="$LB_MAX_CONNS" '
    function wrong(what) { printf "!%s: %s\n", name, what }
    NF == 0 { next }
    {
      count++
      if ($1 !~ /^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9a-fA-F:.]+\]):[0-9]+$/) {
        wrong("\"" $1 "\" is no replica; expected host:port, with options behind it, parted by commas"); usable++; next
      }
      port = $1; sub(/.*:/, "", port)
      if (port + 0 < 1 || port + 0 > 65535) { wrong("the port of \"" $1 "\" is not from 1 to 65535"); usable++; next }
      line = "server " $1; own = ""; seldom = 0
      for (i = 2; i <= NF; i++) {
        if ($i ~ /^weight=/) {
          if ($i !~ /^weight=[1-9][0-9]*$/ || length($i) > 11)
            wrong("\"" $i "\" of " $1 "; expected a weight from 1 to 9999; to send a replica nothing, mark it down")
        } else if ($i ~ /^max_conns=[0-9]+$/) own = $i
        else if ($i == "backup") {
          seldom = 1
          if (algorithm ~ /hash|random/) wrong("backup of " $1 " can not be had with LB_ALGORITHM=" algorithm "; nginx has it with round_robin and least_conn")
        } else if ($i == "down") seldom = 1
        else if ($i != "resolve") wrong("\"" $i "\" of " $1 "; expected weight=N, max_conns=N, backup, down or resolve")
        if ($i !~ /^max_conns=/) line = line " " $i
      }
      if (!seldom) usable++
      print line " " common " " (own == "" ? "max_conns=" conns : own) ";"
    }
    END {
      if (count == 0) wrong("names no replica; expected host:port, parted by commas")
      else if (usable == 0) wrong("names none but backup and down; expected one that is neither")
    }'
}

indented() { printf '%s\n' "$1" | sed '2,$s/^/    /'; }

# group NAME: turns a list of replicas into nginx's `server` lines.
group() {
  eval "list=\$$1"
  # shellcheck disable=SC2154  # eval has set it
  lines=$(servers "$1" "$list")
  wrong=$(printf '%s\n' "$lines" | sed -n 's/^!//p')
  if [ -n "$wrong" ]; then
    problems="$problems$(printf '%s\n' "$wrong" | sed 's/^/  /')$nl"
    return 0
  fi
  case "$lines" in *" resolve"*)
    if at_least 1.27.3; then
      [ -n "$resolver" ] || problem "$1 says resolve, but /etc/resolv.conf names no DNS server"
    else
      problem "$1 says resolve, which needs nginx 1.27.3 or newer; this is $version. List the replicas' addresses instead"
    fi
  esac
  lines=$(indented "$lines")
  eval "$1=\$lines"
}

# fill FILE: prints it with each ${NAME} put in. Those of nginx are in lower case and have no braces.
fill() {
  awk '{
    out = ""; rest = $0
    while (match(rest, /\$\{[A-Z][A-Za-z0-9_]*\}/)) {
      name = substr(rest, RSTART + 2, RLENGTH - 3)
      if (!(name in ENVIRON)) { print FILENAME ": " name " is not set" > "/dev/stderr"; exit 1 }
      out = out substr(rest, 1, RSTART - 1) ENVIRON[name]
      rest = substr(rest, RSTART + RLENGTH)
    }
    print out rest
  }' "$1"
}

# up_to NUMBER: a pattern of nginx's for the whole numbers from 0 to it.
up_to() {
  awk -v most="$1" 'BEGIN {
    digits = length(most)
    printf "0|[1-9]"
    if (digits > 2) printf "[0-9]{0,%d}", digits - 2
    for (i = 1; i <= digits; i++) {
      digit = substr(most, i, 1); least = i == 1
      if (digit > least) printf "|%s[%d-%d][0-9]{%d}", substr(most, 1, i - 1), least, digit - 1, digits - i
    }
    print "|" most
  }'
}

# running: the process id of the nginx of DIR. A file that one left behind may name anybody's process.
running() {
  pid=$(cat "$DIR/nginx.pid" 2>/dev/null) && [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null || return 0
  if [ ! -r "/proc/$pid/cmdline" ] || tr '\0' ' ' <"/proc/$pid/cmdline" | grep -Fq "$DIR/naru-conf/nginx.conf"; then echo "$pid"; fi
}

# put_list CONF LIST: has the configuration in CONF send requests to these replicas. Where the list or nginx has something
# against it, `refusal` says what, and nothing has changed.
put_list() {
  lines=$(servers LB_REPLICAS_FILE "$2")
  refusal=$(printf '%s\n' "$lines" | sed -n 's/^!//p')
  [ -z "$refusal" ] || return 1
  file=$1/$(replicas_conf)
  # Written and taken over in one step, since somebody else may be doing the same. Its first line is the list.
  (
    LB_REPLICAS=$(indented "$lines") LIST_ID=$(list_id "$lines")
    export LB_REPLICAS LIST_ID
    { printf '# %s\n' "$2" && fill "$1/replicas.template"; } >"$file.new.$$" && cp "$file" "$file.old.$$" && mv "$file.new.$$" "$file"
  ) || { refusal="it can't be written into $1"; return 1; }
  refusal=$(nginx -t -c "$1/nginx.conf" 2>&1) || {
    mv "$file.old.$$" "$file"
    return 1
  }
  rm -f "$file.old.$$"
}

replicas_conf() { if [ "$LB_LAYER" = l4 ]; then echo l4/replicas.conf; else echo http/replicas.conf; fi; }

# list_id LINES: tells one list from another; see server/again.conf. None where DNS changes it behind our back.
list_id() { case $1 in *" resolve"*) ;; *) printf '%s' "$1" | cksum | tr ' ' -;; esac; }

# first_line FILE: into `line`; none where there is no such file.
first_line() {
  line=''
  [ ! -r "$1" ] || IFS= read -r line 2>/dev/null <"$1" || true
}

# refresh PID: has nginx take over the list in LB_REPLICAS_FILE if it is another one than nginx has. One that is refused is
# told once, and nginx goes on with what it has.
refused='' told=''
refresh() {
  # Of the latest start or reload.
  { read -r LB_LAYER LB_ALGORITHM LB_MAX_FAILS LB_FAIL_TIMEOUT LB_MAX_CONNS && IFS= read -r LB_REPLICAS_FILE; } 2>/dev/null <"$DIR/feed" || return 0
  first_line "$LB_REPLICAS_FILE"
  wanted=$line
  first_line "$DIR/naru-conf/$(replicas_conf)"
  [ -n "$wanted" ] && [ "# $wanted" != "$line" ] && [ "$wanted" != "$refused" ] || return 0
  if put_list "$DIR/naru-conf" "$wanted"; then
    told=''
    kill -HUP "$1"
  else
    refused=$wanted
    [ "$told" != "$wanted" ] || return 1
    told=$wanted
    printf "Naru's nginx: going on with the replicas of before, since the list in %s is refused: %s\n" "$LB_REPLICAS_FILE" "$refusal" >&2
    return 1
  fi
}

# is_taken PORT: does something on this machine listen there? (Where /proc tells; nginx itself says so elsewhere.)
is_taken() {
  cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
    awk -v port="$(printf '%04X' "$1")" '$4 == "0A" && $2 ~ ":" port "$" { found = 1 } END { exit !found }'
}

# fingerprint of the certificate and its key, to notice that they were renewed.
fingerprint() { cat "$LB_TLS_CERTIFICATE" "$LB_TLS_KEY" 2>/dev/null | cksum; }

check_tls() {
  if [ ! -e "$LB_TLS_CERTIFICATE" ] && [ ! -e "$LB_TLS_KEY" ]; then
    # For trying TLS; browsers warn of it. It is made once, and a real one takes its place at any time.
    [ -z "$problems" ] || return 0
    command -v openssl >/dev/null || {
      problem "no certificate at LB_TLS_CERTIFICATE ($LB_TLS_CERTIFICATE), and no command openssl to make one for trying; expected both files, or openssl on PATH"
      return 0
    }
    mkdir -p "$(dirname "$LB_TLS_CERTIFICATE")" "$(dirname "$LB_TLS_KEY")"
    (umask 077 && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 \
      -subj "/CN=$(printf %.64s "$LB_TLS_NAME")" -addext "subjectAltName=DNS:$LB_TLS_NAME" \
      -keyout "$LB_TLS_KEY" -out "$LB_TLS_CERTIFICATE" 2>/dev/null) ||
      { problem "no certificate at LB_TLS_CERTIFICATE ($LB_TLS_CERTIFICATE), and none could be written there"; return 0; }
    echo "Naru's nginx: made a self-signed certificate for $LB_TLS_NAME, for trying only: $LB_TLS_CERTIFICATE" >&2
    return 0
  fi
  for name in LB_TLS_CERTIFICATE LB_TLS_KEY; do
    eval "file=\$$name"
    [ -r "$file" ] || problem "$name holds \"$file\", which can't be read; expected both files, or neither to have a self-signed one made"
  done
  [ ! -r "$LB_TLS_CERTIFICATE" ] || [ ! -r "$LB_TLS_KEY" ] || is_pair ||
    problem "nginx refuses the certificate LB_TLS_CERTIFICATE ($LB_TLS_CERTIFICATE) with the key LB_TLS_KEY ($LB_TLS_KEY); expected a pair, in PEM"
}

# is_pair: do the certificate and the key belong together? nginx itself takes those of two kinds, RSA and EC, for a pair.
# Where there is no openssl, as in nginx's own image on Alpine, nginx's judgement has to do.
is_pair() {
  command -v openssl >/dev/null || return 0
  [ "$(openssl x509 -in "$LB_TLS_CERTIFICATE" -noout -pubkey 2>/dev/null)" = "$(openssl pkey -in "$LB_TLS_KEY" -pubout 2>/dev/null || echo none)" ]
}

# Where there is openssl.
warn_of_expiry() {
  command -v openssl >/dev/null || return 0
  openssl x509 -in "$LB_TLS_CERTIFICATE" -noout -checkend 0 >/dev/null 2>&1 ||
    echo "Naru's nginx: the certificate LB_TLS_CERTIFICATE ($LB_TLS_CERTIFICATE) has expired; clients will refuse it" >&2
}

# watch_files PID: reloads nginx soon after the list of replicas has changed or the certificate was renewed, for as long as
# it runs. A renewal writes two files; between them they are no pair, and nginx goes on with the one that it has.
watch_files() {
  known='' paths='' turn=0
  # Often enough that it soon ends with nginx, too.
  while sleep 0.25 && kill -0 "$1" 2>/dev/null; do
    [ ! -e "$DIR/feed" ] || refresh "$1" || true
    turn=$(((turn + 1) % 8))
    [ $turn = 0 ] || continue
    # What nginx had against it may be over.
    refused=''
    # A reload may have changed which they are, or switched TLS off.
    { IFS= read -r LB_TLS_CERTIFICATE && IFS= read -r LB_TLS_KEY; } 2>/dev/null <"$DIR/pair" || continue
    [ "$LB_TLS_CERTIFICATE $LB_TLS_KEY" = "$paths" ] || { paths="$LB_TLS_CERTIFICATE $LB_TLS_KEY" known=$(fingerprint); }
    now=$(fingerprint)
    [ "$now" != "$known" ] || continue
    known=$now
    is_pair || {
      echo "Naru's nginx: the certificate and the key that have changed are no pair; going on with those of before" >&2
      continue
    }
    echo "Naru's nginx: the certificate has changed; reloading" >&2
    kill -HUP "$1"
  done
}

[ $# = 2 ] || usage
action=$1 DIR=$2
case $action in check | start) verb=start ;; reload | refresh) verb=reload ;; *) usage ;; esac
[ "$verb" != reload ] || [ -n "$(running)" ] || {
  echo "No nginx runs with $DIR; expected the folder that \`balancer.sh start\` was given" >&2
  exit 1
}
case $DIR in
  '' | -* | *[\"\$\;\{\}\\*?[]* | *"$nl"*)
    printf 'DIR holds "%s"; expected the path of a folder that begins with no - and is without " $ ; { } \\ * ? [\n' "$DIR" >&2
    exit 1
    ;;
esac
mkdir -p "$DIR"
DIR=$(cd "$DIR" && pwd)
[ "$action" != refresh ] || {
  refresh "$(running)"
  exit
}
[ "$action" != start ] || [ -z "$(running)" ] || {
  echo "An nginx runs with $DIR already (process $(running)); reload it, or give this one a folder of its own" >&2
  exit 1
}

command -v nginx >/dev/null || {
  echo 'nginx is not installed, or not on PATH. Debian, Ubuntu: apt install nginx libnginx-mod-stream; macOS: brew install nginx' >&2
  exit 1
}
version=$(nginx -v 2>&1 | sed 's|.*nginx/\([0-9.]*\).*|\1|')
at_least 1.22 || problem "nginx 1.22 or newer is needed; this is $version"
resolver=$(awk '$1 == "nameserver" { print ($2 ~ /:/ ? "[" $2 "]" : $2) }' /etc/resolv.conf 2>/dev/null | head -n 3 | tr '\n' ' ')

# --- What may be set

number='[0-9]{1,9}' positive='[1-9][0-9]{0,8}' port='[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]' time='[1-9][0-9]{0,5}(ms|s|m|h)' size='[1-9][0-9]{0,5}[kmg]'
# nginx would read the characters left out as more than a path.
path='/[^"$;{}\\]*'
setting LB_LAYER l7 'l7|l4' 'l7 or l4'
setting LB_PORT 8080 "$port" 'a port from 1 to 65535'
setting LB_REPLICAS '' '.*' ''
setting LB_REPLICAS_FILE '' "$path" 'an absolute path'
setting LB_READ_REPLICAS '' '.*' ''
setting LB_LARGE_REPLICAS '' '.*' ''
setting LB_ALGORITHM round_robin 'round_robin|least_conn|ip_hash|hash|random' \
  'round_robin, least_conn, ip_hash, hash or random (least_time is in commercial nginx only; least_conn is the nearest)'
setting LB_STICKY off 'off|cookie' 'off or cookie'
setting LB_MAX_FAILS 1 "$number" 'a whole number'
# Who watches the replicas takes out one that has failed; nginx needs to bench it until then.
setting LB_FAIL_TIMEOUT "$([ -n "$LB_REPLICAS_FILE" ] && echo 1s || echo 5s)" "$time" 'a time such as 5s'
setting LB_MAX_CONNS 0 "$number" 'a whole number, 0 for no limit'
setting LB_CLIENT_KEEPALIVE 65s "0|$time" 'a time such as 65s, or 0'
setting LB_KEEPALIVE 64 "$positive" 'a whole number from 1 on'
setting LB_BUFFER_BYTES 2000000 "$positive|10[0-6][0-9]{7}" 'a whole number from 1 to 1069999999'
setting MAX_IMAGE_BYTES 20971520 "$positive|10[0-6][0-9]{7}|107[0-2][0-9]{6}|1073[0-6][0-9]{5}|10737[0-3][0-9]{4}|107374(0[0-9]{3}|1[0-7][0-9]{2}|18[0-1][0-9]|182[0-4])" 'a whole number from 1 to 1073741824'
setting MAX_IMAGES_PER_REQUEST 10 '[1-9][0-9]?|100' 'a whole number from 1 to 100'
setting TRUSTED_PROXIES '' '.*' ''
setting LB_INSIDE '127.0.0.0/8,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7' '.*' ''
setting LB_DENY '' '.*' ''
setting LB_ALLOW '' '.*' ''
setting LB_TLS off 'on|off' 'on or off'
setting LB_TLS_PORT 8443 "$port" 'a port from 1 to 65535'
setting LB_TLS_PUBLIC_PORT 443 "$port" 'a port from 1 to 65535'
setting LB_TLS_NAME localhost '[A-Za-z0-9.-]{1,253}' 'a host name'
setting LB_TLS_CERTIFICATE "$DIR/tls/fullchain.pem" "$path" 'an absolute path'
setting LB_TLS_KEY "$DIR/tls/privkey.pem" "$path" 'an absolute path'
setting LB_ACME_ROOT "$DIR/acme" "$path" 'an absolute path'
setting LB_LIMITS off 'on|off' 'on or off'
setting LB_UPLOADS_PER_SECOND 10 "$positive" 'a whole number from 1 on'
setting LB_UPLOADS_BURST 20 "$number" 'a whole number'
setting LB_READS_PER_SECOND 100 "$positive" 'a whole number from 1 on'
setting LB_READS_BURST 200 "$number" 'a whole number'
setting LB_CONNECTIONS 32 "$positive" 'a whole number from 1 on'
setting LB_CACHE off 'on|off' 'on or off'
setting LB_CACHE_DIR "$DIR" "$path" 'an absolute path'
setting LB_CACHE_SIZE 1g "$size" 'a size such as 1g'
setting LB_CACHE_TIME 60s "$time" 'a time such as 60s'
setting LB_CACHE_VERSION 1 '[A-Za-z0-9._-]{1,32}' '1 to 32 letters, digits, ".", "_" or "-"'
setting LB_ACCESS_LOG /dev/stdout "$path|syslog:[]A-Za-z0-9_.:,=/[-]+|off" 'an absolute path, syslog:server=host:port or off'
setting LB_USER "$(if [ "$(id -u)" = 0 ]; then id -un nginx 2>/dev/null || id -un www-data 2>/dev/null || echo root; else id -un; fi)" \
  '[A-Za-z_][A-Za-z0-9_-]*' 'a user name'

# A name that is mistyped would do nothing, in silence.
for name in $(env | sed -n 's/^\(LB_[A-Za-z0-9_]*\)=.*/\1/p'); do
  case $known_settings in *" $name "*) ;; *) problem "$name is no setting" ;; esac
done

check_addresses TRUSTED_PROXIES
check_addresses LB_INSIDE
check_addresses LB_DENY
check_addresses LB_ALLOW

group LB_REPLICAS
READS_UPSTREAM=naru LARGE_UPSTREAM=naru
[ -z "$LB_READ_REPLICAS" ] || { READS_UPSTREAM=naru_read; group LB_READ_REPLICAS; }
[ -z "$LB_LARGE_REPLICAS" ] || { LARGE_UPSTREAM=naru_large; group LB_LARGE_REPLICAS; }

# --- What follows from it

case $LB_ALGORITHM in
  round_robin) ALGORITHM='# round_robin is what nginx does when nothing is said.' ;;
  least_conn) ALGORITHM='least_conn;' ;;
  ip_hash) ALGORITHM='ip_hash;' ;;
  hash) ALGORITHM='hash $naru_hash_key consistent;' ;;
  random) ALGORITHM='random two least_conn;' ;;
esac
STICKY=''
if [ "$LB_STICKY" = cookie ]; then
  STICKY='sticky cookie naru_replica httponly path=/ samesite=lax;'
  at_least 1.29.6 || problem "LB_STICKY=cookie needs nginx 1.29.6 or newer; this is $version. Naru needs no stickiness: any replica serves any image"
fi
if [ "$LB_LAYER" = l4 ]; then
  case $LB_ALGORITHM in
    hash) problem 'LB_ALGORITHM=hash chooses by URL, which an L4 balancer does not see; expected round_robin, least_conn, ip_hash or random' ;;
    ip_hash) ALGORITHM='hash $remote_addr consistent;' ;;
  esac
  for name in LB_READ_REPLICAS LB_LARGE_REPLICAS TRUSTED_PROXIES; do
    eval "[ -z \"\$$name\" ]" || problem "$name needs LB_LAYER=l7: an L4 balancer sees no requests"
  done
  for name in LB_TLS LB_LIMITS LB_CACHE LB_STICKY; do
    eval "[ \"\$$name\" = off ]" || problem "$name needs LB_LAYER=l7: an L4 balancer sees no requests"
  done
fi

RESOLVER=''
[ -z "$resolver" ] || ! at_least 1.27.3 || RESOLVER="resolver $resolver valid=2s ipv6=off;"
MAX_BODY_BYTES=$((MAX_IMAGE_BYTES * MAX_IMAGES_PER_REQUEST + 1048576))
ACCESS_LOG="access_log \"$LB_ACCESS_LOG\" naru;"
[ "$LB_ACCESS_LOG" != off ] || ACCESS_LOG='access_log off;'
HTTPS_PORT=''
[ "$LB_TLS_PUBLIC_PORT" = 443 ] || HTTPS_PORT=:$LB_TLS_PUBLIC_PORT
KEEPALIVE_MIN=''
! at_least 1.27.4 || KEEPALIVE_MIN='keepalive_min_timeout 10s;'
if at_least 1.25.1; then LISTEN_HTTP2='' HTTP2='http2 on;'; else LISTEN_HTTP2=' http2' HTTP2=''; fi
TRUST=$(addresses TRUSTED_PROXIES | sed 's/.*/set_real_ip_from &;/')
TRUSTED=$(addresses TRUSTED_PROXIES | sed 's/.*/    & 1;/')
INSIDE=$(addresses LB_INSIDE | sed 's/.*/    & 1;/')
ACCESS=$(addresses LB_DENY | sed 's/.*/deny &;/')$nl$(addresses LB_ALLOW | sed 's/.*/allow &;/')
[ -z "$(addresses LB_ALLOW)" ] || ACCESS="$ACCESS${nl}deny all;"
# Only root may choose whom nginx's workers run as.
USER_LINE=''
[ "$(id -u)" != 0 ] || USER_LINE="user $LB_USER;"
LISTEN_IPV6='' LISTEN_TLS_IPV6=''
if grep -q . /proc/net/if_inet6 2>/dev/null; then
  LISTEN_IPV6="listen [::]:$LB_PORT;" LISTEN_TLS_IPV6="listen [::]:$LB_TLS_PORT ssl$LISTEN_HTTP2;"
fi
LIST_ID=$(list_id "$LB_REPLICAS")
BUFFERED=$(up_to "$LB_BUFFER_BYTES")
# What a request is handed on by that old workers can't place; see server/again.conf. A socket's path can't be long.
AGAIN_SOCKET=$DIR/again/socket FAILED=@again
[ ${#AGAIN_SOCKET} -le 100 ] || FAILED=@overloaded
export LIST_ID BUFFERED AGAIN_SOCKET FAILED
export LISTEN_IPV6 LISTEN_TLS_IPV6
export DIR ACCESS_LOG KEEPALIVE_MIN ALGORITHM STICKY RESOLVER MAX_BODY_BYTES HTTPS_PORT LISTEN_HTTP2 HTTP2 TRUST TRUSTED INSIDE ACCESS USER_LINE
export READS_UPSTREAM LARGE_UPSTREAM

# --- Write it beside the old one, test it, and only then let it take its place

ports=" $LB_PORT $([ "$LB_TLS" = off ] || echo "$LB_TLS_PORT") "
own=' '
[ "$action" != reload ] || own=$(cat "$DIR/ports")
for port in $ports; do
  case $own in *" $port "*) continue ;; esac
  ! is_taken "$port" || problem "port $port is in use; free it or choose another one"
done
[ "$LB_TLS" = off ] || [ "$LB_PORT" != "$LB_TLS_PORT" ] || problem "LB_PORT and LB_TLS_PORT are both $LB_PORT; expected two ports"
[ "$LB_TLS" = off ] || check_tls
fail_if_wrong

# The concerns that are switched off, by the names of their files.
without=''
[ -n "$LB_READ_REPLICAS" ] || without="$without read-replicas"
[ -n "$LB_LARGE_REPLICAS" ] || without="$without large-replicas"
[ "$LB_LIMITS" = on ] || without="$without limits"
[ "$LB_CACHE" = on ] || without="$without cache"
if [ "$LB_TLS" = on ]; then without="$without plain"; else without="$without tls"; fi
[ "$FAILED" = @again ] || without="$without again"

cd "$here"
rm -rf "$DIR/naru-conf.$$" "$DIR/naru-conf.old"
mkdir -p "$DIR/naru-conf.$$" "$DIR/tmp"
if [ "$LB_LAYER" = l4 ]; then main=l4.conf files=$(echo l4/*.conf); else main=nginx.conf files=$(echo problem.conf own.conf http/*.conf server/*.conf location/*.conf uploads/*.conf reads/*.conf); fi
fill "$main" >"$DIR/naru-conf.$$/nginx.conf"
for file in $files; do
  case " $without " in *" $(basename "$file" .conf) "*) continue ;; esac
  mkdir -p "$(dirname "$DIR/naru-conf.$$/$file")"
  fill "$file" >"$DIR/naru-conf.$$/$file"
done
# What `refresh` fills in.
# shellcheck disable=SC2016
(LB_REPLICAS='${LB_REPLICAS}' LIST_ID='${LIST_ID}' && fill "$(replicas_conf)") >"$DIR/naru-conf.$$/replicas.template"
# Nobody but nginx's workers may hand on a request: it is believed whatever it says of its client.
(umask 077 && mkdir -p "$DIR/again")
[ "$(id -u)" != 0 ] || chown "$LB_USER" "$DIR/again"
# That of one that was killed.
[ "$action" != start ] || rm -f "$AGAIN_SOCKET"
[ "$LB_TLS" = off ] || mkdir -p "$LB_ACME_ROOT"
[ "$LB_CACHE" = off ] || mkdir -p "$LB_CACHE_DIR/naru-cache"

tested=$(nginx -t -c "$DIR/naru-conf.$$/nginx.conf" 2>&1) || {
  case $tested in *SSL* | *"cannot load certificate"*)
    problem "nginx refuses the certificate LB_TLS_CERTIFICATE ($LB_TLS_CERTIFICATE) with the key LB_TLS_KEY ($LB_TLS_KEY); expected a pair, in PEM: $(printf '%s\n' "$tested" | sed -n 's/.*\[emerg\] //p' | head -n 1)"
    fail_if_wrong
  esac
  printf "Naru's nginx can't %s: nginx refuses the configuration in %s/naru-conf.$$:\n%s\n" "$verb" "$DIR" "$tested" >&2
  exit 1
}
if [ "$action" = check ]; then
  rm -rf "$DIR/naru-conf.$$"
  exit 0
fi
if [ -n "$LB_REPLICAS_FILE" ]; then
  first_line "$LB_REPLICAS_FILE"
  if [ -n "$line" ] && ! put_list "$DIR/naru-conf.$$" "$line"; then
    printf "Naru's nginx: beginning with LB_REPLICAS, since the list in %s is refused: %s\n" "$LB_REPLICAS_FILE" "$refusal" >&2
  fi
fi
[ "$LB_TLS" = off ] || warn_of_expiry
[ ! -d "$DIR/naru-conf" ] || mv "$DIR/naru-conf" "$DIR/naru-conf.old"
mv "$DIR/naru-conf.$$" "$DIR/naru-conf"
echo "$ports" >"$DIR/ports"
if [ "$LB_TLS" = on ]; then printf '%s\n%s\n' "$LB_TLS_CERTIFICATE" "$LB_TLS_KEY" >"$DIR/pair"; else rm -f "$DIR/pair"; fi
if [ -n "$LB_REPLICAS_FILE" ]; then
  printf '%s\n' "$LB_LAYER $LB_ALGORITHM $LB_MAX_FAILS $LB_FAIL_TIMEOUT $LB_MAX_CONNS" "$LB_REPLICAS_FILE" >"$DIR/feed"
else
  rm -f "$DIR/feed"
fi
rm -rf "$DIR/naru-conf.old"

if [ "$action" = reload ]; then
  kill -HUP "$(running)"
else
  watch_files $$ &
  exec nginx -c "$DIR/naru-conf/nginx.conf" -g 'daemon off;'
fi
