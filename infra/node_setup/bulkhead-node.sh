#!/bin/sh
# bulkhead-node: makes this server a node of a Bulkhead cluster, keeps it one, and undoes that.
#
# Network: this server opens every connection (HTTPS, TLS 1.2 or newer, through HTTPS_PROXY where
# that is set). The platform's certificate authority is known by its sha256, nothing else is trusted.
# Secrets: the one-time token comes on standard input or in a file; private keys are made here and
# stay here. None is ever an argument of a program or in a log; a proxy's password alone is exported.
# Power cuts: every file is written beside its place and renamed, and what must not be lost (the key,
# the platform's answer) is on the disk before anything depends on it. What was not finished,
# bulkhead-node.timer goes on with, and so does running `install` again.
# Files: /etc/bulkhead, /var/lib/bulkhead, /opt/bulkhead, /opt/cni/bin, /run/bulkhead, the units
# bulkhead-*, and the few that `forget` names; it removes all of them.
#
# Contents, in the order in which a server goes through it; `main` at the end runs one command:
#   1 names and help    where everything lies, the commands, the exit codes
#   2 helpers           ending with a reason, writing files, curl
#   3 checks            what is looked at before anything is changed
#   4 the platform      signed requests, registration, reports, renewals
#   5 programs          fetched, and compared with their sha256
#   6 configuration     of kernel, kubelet, kube-proxy, containerd and the pod network
#   7 services          the systemd units
#   8 joining           install
#   9 afterwards        report (each 30 seconds), check, endpoints, status
#  10 leaving           uninstall
set -eu
umask 077
PATH=$PATH:/usr/sbin:/sbin
# Of what tools print; and by it, classes of characters are those of ASCII.
export LC_ALL=C

# ---------------------------------------------------------------- 1 names and help

ETC=/etc/bulkhead
STATE=/var/lib/bulkhead
TOKENS=$STATE/tokens
RUN=/run/bulkhead
BIN=/opt/bulkhead/bin
SELF=/usr/local/sbin/bulkhead-node
UNITS=/etc/systemd/system
NETWORK=/etc/cni/net.d/10-bulkhead.conflist
KUBELET_CERTIFICATE=/var/lib/kubelet/pki/kubelet-client-current.pem
SERVICES="bulkhead-containerd bulkhead-kubelet bulkhead-tunnel bulkhead-kube-proxy bulkhead-flannel"
# What the services fill: `forget` empties what was empty before them, and nothing else.
TREES="/var/lib/kubelet /var/lib/containerd /var/lib/cni /run/containerd /run/flannel
/var/log/pods /var/log/containers"
MODULES="overlay br_netfilter nf_conntrack vxlan"
# Tunnel, kubelet and kube-proxy; all but 10250 listen on 127.0.0.1 only.
PORTS="8133 8134 10248 10249 10250 10256"

help() {
    cat <<'TEXT'
bulkhead-node [install] --url URL --authority-sha256 HEX [--token-file FILE]
    joins the cluster for which the token was made; without --token-file the token is read from
    standard input. The file is removed. Again: completes or repairs what is there.
bulkhead-node check [--url URL --authority-sha256 HEX]      makes all checks, changes nothing
bulkhead-node endpoints [--url URL]                         what this server must be able to reach
bulkhead-node status                                        how this server is doing; ends with
                                                            the code of what failed, if it did
bulkhead-node report                                        run by bulkhead-node.timer
bulkhead-node uninstall                                     leaves the server as it was before

Exit codes:
     0  done
     1  something unexpected; the last lines say what
     2  the command line, or what was given as the token, cannot be used
    10  not root
    11  not Linux with systemd
    12  no programs for this processor architecture
    13  a tool is missing
    14  a kernel module is missing
    15  swap is on
    16  a port is in use
    17  another kubelet or container runtime is here
    18  not enough disk space
    19  the platform's certificate authority is not the one whose hash was given
    20  the clock is off by more than 60 seconds
    21  the token was used, was revoked or has expired
    22  the platform refused this server for another reason
    23  a program's sha256 is not the pinned one, twice
    24  a service does not run
    25  this server is no longer part of its cluster
    26  uninstall could not remove everything
    27  the node did not appear in its cluster in time
    31  the platform's API cannot be reached
    32  the cluster's API cannot be reached
    33  the cluster's tunnel cannot be reached
    34  the platform's registry cannot be reached
TEXT
}

# ---------------------------------------------------------------- 2 helpers

say() { echo "bulkhead: $*"; }

usage() {
    say "$1 See: bulkhead-node --help" >&2
    exit 2
}

# fail CODE SENTENCE: ends the run; the sentence is shown, kept for `status`, and told the platform.
fail() {
    say "$2" >&2
    remember failed "$1" "$2"
    case $1 in
    20 | 25 | 31) ;; # the platform knows, or cannot be told
    26) ! registered || tell failed "$1" "$2" || true ;;
    *) if registered && tell failed "$1" "$2"; then obey; fi ;;
    esac
    exit "$1"
}

remember() {
    [ ! -d "$RUN" ] ||
        printf 'phase %s\ncode %s\nmessage %s\nat %s\n' "$1" "$2" "$3" "$(date)" >"$RUN/state"
}

lock() {
    mkdir -p "$RUN"
    exec 9>"$RUN/lock"
    flock "$@" 9
}

registered() { [ -s "$ETC/registration" ]; }

# value KEY: one line of what the platform answered at registration.
value() { sed -n "s/^$1 //p" "$ETC/registration"; }

# put MODE PATH: replaces a file by standard input in one step, if that changes it. Which files were
# changed is noted until the services that read them were restarted; tokens are read again anyway.
put() {
    cat >"$2.new"
    if cmp -s "$2.new" "$2"; then
        rm "$2.new"
    else
        chmod "$1" "$2.new"
        mv "$2.new" "$2"
        case $2 in "$TOKENS"/*) ;; *) echo "$2" >>"$RUN/changed" ;; esac
    fi
}

# web ARGUMENT...: curl as it is used for everything here, without root's own settings for it. Of
# what it says the first line is kept in $WORK/error: the rest is advice about curl.
web() {
    ended=0
    curl --disable --silent --show-error --proto =https --tlsv1.2 --connect-timeout 10 "$@" \
        2>"$WORK/said" || ended=$?
    sed -n 1p "$WORK/said" >"$WORK/error"
    return "$ended"
}

# use_proxy: of whoever calls this, or else what whoever installed had.
use_proxy() {
    PROXY=${HTTPS_PROXY:-${https_proxy:-}}
    OUTSIDE=${NO_PROXY:-${no_proxy:-}}
    if [ -z "$PROXY" ] && [ -s "$ETC/proxy.env" ]; then
        PROXY=$(sed -n 's/^HTTPS_PROXY=//p' "$ETC/proxy.env")
        OUTSIDE=$(sed -n 's/^OUTSIDE=//p' "$ETC/proxy.env")
        # curl gets it as the services do.
        export HTTPS_PROXY="$PROXY" NO_PROXY="$OUTSIDE"
    fi
}

# openssl's takes a quarter of sha256sum's time where the processor helps.
hash_of() { openssl dgst -sha256 -r <"$1" | cut -d ' ' -f 1; }

# addresses: those of the server itself, not of pods.
addresses() {
    ip -o -4 address show scope global |
        awk '$2 !~ /^(cni|flannel|veth|cilium|lxc)/ { sub("/.*", "", $4); print $4 }' | head -n 32
}

# address_towards HOST: this server's own address on the way there.
address_towards() {
    there=$(getent ahostsv4 "$1" | awk '{ print $1; exit }')
    own=$(ip -4 route get "${there:-192.0.2.1}" 2>/dev/null | sed -n 's/.* src \([0-9.]*\).*/\1/p')
    echo "${own:-$(addresses | head -n 1)}"
}

# ---------------------------------------------------------------- 3 checks

# Three lists: the server itself, the way to the platform, the ways to its cluster.
check_server() { run_checks system architecture tools modules swap ports runtimes disk; }
check_way_to_platform() { run_checks authority clock platform; }
check_ways_to_cluster() { run_checks cluster_api pods tunnel registry; }

# run_checks NAME...: with SHOW set all of them as a table, else until one does not pass.
run_checks() {
    for name in "$@"; do
        code=0 MESSAGE=
        "check_$name" || code=$?
        if [ -z "$SHOW" ]; then
            [ "$code" = 0 ] || fail "$code" "$MESSAGE"
        elif [ "$code" = 0 ]; then
            echo "ok      $name"
        else
            echo "FAIL $code $name: $MESSAGE"
            [ "$FIRST" != 0 ] || FIRST=$code
        fi
    done
}

# problem CODE SENTENCE: what a check answers when it does not pass.
problem() {
    MESSAGE=$2
    return "$1"
}

check_system() {
    [ "$(uname -s)" = Linux ] && [ -d /run/systemd/system ] ||
        problem 11 "This is not Linux started by systemd, which runs the services of a node."
}

check_architecture() {
    case $(uname -m) in
    x86_64) ARCHITECTURE=amd64 ;;
    aarch64) ARCHITECTURE=arm64 ;;
    *) problem 12 "There are no programs for $(uname -m); a node needs x86_64 or aarch64." ;;
    esac
}

check_tools() {
    missing=
    for tool in awk base64 cmp curl flock getent ip iptables mount openssl sha256sum ss; do
        command -v "$tool" >/dev/null || missing="$missing $tool"
    done
    install="apt-get install iproute2"
    ! command -v dnf >/dev/null || install="dnf install iproute"
    [ -z "$missing" ] ||
        problem 13 "Missing:$missing. Run: $install curl openssl iptables kmod util-linux diffutils"
}

# has_module NAME: loaded or built in, as far as what it adds to the kernel is there.
has_module() {
    case $1 in
    overlay) grep -qw overlay /proc/filesystems ;;
    br_netfilter) [ -e /proc/sys/net/bridge/bridge-nf-call-iptables ] ;;
    nf_conntrack) [ -e /proc/sys/net/netfilter/nf_conntrack_max ] ;;
    vxlan) [ -d /sys/module/vxlan ] ;;
    esac
}

# They are only looked for here; `load_modules` follows when nothing else is in the way.
check_modules() {
    missing=
    for module in $MODULES; do
        has_module "$module" || modprobe --quiet --dry-run "$module" 2>/dev/null ||
            missing="$missing $module"
    done
    [ -z "$missing" ] || problem 14 "The kernel has no module:$missing. Install the full kernel package."
}

check_swap() {
    [ "$(wc -l </proc/swaps)" -le 1 ] ||
        problem 15 "Swap is on. Turn it off with swapoff -a, and remove it from /etc/fstab."
}

check_ports() {
    if systemctl is-active --quiet bulkhead-kubelet; then return; fi
    used=$(ss -Hltn | awk '{ sub(".*:", "", $4); print $4 }')
    taken=
    for port in $PORTS; do
        ! echo "$used" | grep -qx "$port" || taken="$taken $port"
    done
    case $taken in
    '') return ;;
    ' '*' '*) in_use="Ports$taken are in use" ;;
    *) in_use="Port$taken is in use" ;;
    esac
    problem 16 "$in_use; see who with: ss -ltnp. A node needs $PORTS."
}

check_runtimes() {
    running=$(systemctl list-units --plain --no-legend --state=active kubelet.service \
        containerd.service docker.service crio.service k3s.service k3s-agent.service \
        rke2-server.service rke2-agent.service snap.microk8s.daemon-kubelite.service)
    [ -z "$running" ] ||
        problem 17 "${running%% *} runs here. Stop and disable it, or take another server." || return
    # Of pod networks containerd takes the first by name.
    for file in /etc/kubernetes/kubelet.conf /var/lib/kubelet/config.yaml /etc/cni/net.d/0*; do
        [ ! -e "$file" ] || problem 17 "$file is of another Kubernetes. Remove that first." || return
    done
}

check_disk() {
    if [ -e "$STATE/installed" ]; then return; fi
    for need in "/opt 1" "/var/lib 2"; do
        free=$(df -Pk "${need% *}" | awk 'NR == 2 { print $4 }')
        [ "$free" -ge $((${need#* } * 1048576)) ] ||
            problem 18 "${need% *} has $((free / 1024)) MiB free; ${need#* } GiB are needed." || return
    done
}

# The authority is fetched without trust and then compared with the hash. It is asked at its address
# for the time as well, because a clock that is far off makes every certificate look invalid.
check_authority() {
    AUTHORITY=$WORK/authority
    fetch_unverified || problem 31 "$URL cannot be reached: $(cat "$WORK/error")" || return
    [ "$(hash_of "$AUTHORITY")" = "$AUTHORITY_SHA256" ] ||
        problem 19 "The certificate authority of $URL is not the one that was named: somebody is in between, or the command is an old one."
}

fetch_unverified() {
    web --fail --insecure --max-time 30 --dump-header "$WORK/unverified" \
        --output "$WORK/authority" "$URL/v1/nodes/authority"
}

check_clock() {
    there=$(sed -n 's/^[Dd]ate: *//p' "$WORK/unverified" 2>/dev/null | tr -d '\r' | tail -n 1)
    [ -n "$there" ] || problem 31 "$URL does not tell the time." || return
    off=$(($(date +%s) - $(date -d "$there" +%s)))
    [ "$off" -le 60 ] && [ "$off" -ge -60 ] ||
        problem 20 "This server's clock is off by $off seconds. Set it, for example with: timedatectl set-ntp true"
}

check_platform() {
    host=${URL#https://}
    port=${host##*:}
    host=${host%:*}
    [ "$port" != "$host" ] || port=443
    check_endpoint 31 "The platform's API" "$AUTHORITY" "$host" "$host" "$port"
}

check_cluster_api() { check_of_cluster 32 "The cluster's API" cluster_api; }
check_tunnel() { check_of_cluster 33 "The cluster's tunnel" tunnel; }

check_of_cluster() {
    check_endpoint "$1" "$2" "$ETC/cluster-ca.crt" "$(value "$3_host")" \
        "$(value "$3_server_name")" "$(value "$3_port")"
}

# A client in a pod knows no proxy, and names an address, which a shared entrance cannot tell from
# another cluster's: it connects to the cluster's own port.
check_pods() {
    [ -z "$PROXY" ] && has_pods_port || return 0
    host=$(value cluster_api_host)
    check_endpoint 32 "The cluster's API for pods" "$ETC/cluster-ca.crt" "$host" "$host" \
        "$(value pods_api_port)"
}

has_pods_port() {
    case $(value pods_api_port) in '' | "$(value cluster_api_port)") return 1 ;; esac
}

check_registry() {
    registry=$(value registry)
    [ -z "$registry" ] || check_endpoint 34 "The platform's registry" "$ETC/platform-ca.crt" \
        "${registry%:*}" "${registry%:*}" "${registry##*:}"
}

# check_endpoint CODE WHAT AUTHORITY HOST NAME PORT: connects, and lets TLS verify the certificate.
# What is answered after that does not matter, so curl's own exit code does not either.
check_endpoint() {
    handshake=$(web --output /dev/null --cacert "$3" --max-time 15 --connect-to "$5:$6:$4:$6" \
        --write-out '%{time_appconnect}' "https://$5:$6/") || true
    case $handshake in
    *[1-9]*) ;;
    *) problem "$1" "$2 at $4:$6 cannot be reached: $(cat "$WORK/error")" ;;
    esac
}

# ---------------------------------------------------------------- 4 the platform

# use_what_is_known: of the platform, since the command of the bootstrap was run here.
use_what_is_known() {
    [ -s "$ETC/url" ] || fail 2 "Nothing is set up here. Start with the command of a worker bootstrap."
    URL=$(cat "$ETC/url")
    AUTHORITY=$ETC/platform-ca.crt
}

# ask PATH: POSTs $WORK/body with the headers in $WORK/headers. The status goes to HTTP (000: no
# answer), the answer to $WORK/answer.
ask() {
    : >"$WORK/answer"
    HTTP=$(web --cacert "$AUTHORITY" --max-time 60 --header 'Content-Type: application/json' \
        --header 'Accept: text/plain' --header "@$WORK/headers" --data-binary "@$WORK/body" \
        --output "$WORK/answer" --write-out '%{http_code}' "$URL$1") || HTTP=000
}

# ask_signed NAME: the same of this node itself, signed with its key; true if the platform did it.
ask_signed() {
    path=/v1/nodes/self:$1
    now=$(date +%s)
    printf 'POST\n%s\n%s\n%s' "$path" "$now" "$(hash_of "$WORK/body")" >"$WORK/signed"
    openssl dgst -sha256 -sign "$ETC/identity.key" -out "$WORK/signature" "$WORK/signed"
    [ -s "$WORK/public" ] ||
        openssl pkey -in "$ETC/identity.key" -pubout -outform DER -out "$WORK/public"
    printf 'Bulkhead-Key: %s\nBulkhead-Time: %s\nBulkhead-Signature: %s\n' \
        "$(hash_of "$WORK/public")" "$now" "$(base64 -w 0 <"$WORK/signature")" >"$WORK/headers"
    ask "$path"
    [ "$HTTP" = 200 ]
}

answer() { sed -n "s/^$1 //p" "$WORK/answer"; }

# reason: the sentence of an error answer, or of curl when there was none.
reason() {
    [ "$HTTP" = 000 ] && cat "$WORK/error" && return
    sed -n 's/.*"message": *"\([^"]*\)".*/\1/p' "$WORK/answer"
}

# unanswered: ends the run with why the platform did not do what it was asked.
unanswered() {
    [ "$HTTP" != 401 ] || refused
    if [ "$HTTP" = 000 ] && fetch_unverified && ! check_clock; then fail 20 "$MESSAGE"; fi
    fail 31 "$URL does not do what it is asked ($HTTP): $(reason) This server tries again every 30 seconds."
}

# refused: ends the run with what a 401 to a signed request means.
refused() {
    unknown
    systemctl stop bulkhead-kubelet bulkhead-tunnel
    fail 25 "This server is no longer part of its cluster ($(reason)). Run: bulkhead-node uninstall"
}

# unknown: true if the platform says so of this server; any other 401 ends the run.
unknown() {
    [ "$HTTP" = 401 ] || return 1
    off=$(sed -n 's/.*"clock_offset_seconds": *"\{0,1\}\(-\{0,1\}[0-9]*\).*/\1/p' "$WORK/answer")
    [ -z "$off" ] || fail 20 "This server's clock is off by $off seconds. Set it; all goes on then."
    by_platform
}

# by_platform: an answer of something in between is no reason to stop or remove anything.
by_platform() {
    grep -q '"success": *false' "$WORK/answer" ||
        fail 22 "$URL answers $HTTP, not as the platform does. This server tries again every 30 seconds."
}

# quoted: the lines of standard input as a list of JSON strings, without what JSON would escape.
quoted() { tr -cd '[:alnum:] .,:;/()_=+\n-' | sed 's/ *$//; s/.*/"&"/' | paste -s -d , -; }

# host_facts: the members of a request that say which server asks.
host_facts() { printf '"hostname":%s,"addresses":[%s]' "$(uname -n | quoted)" "$(addresses | quoted)"; }

signing_request() {
    printf '[req]\ndistinguished_name = dn\n[dn]\n' >"$WORK/openssl.cnf"
    openssl req -new -config "$WORK/openssl.cnf" -subj /CN=bulkhead-node -key "$ETC/identity.key" |
        base64 -w 0
}

# register: gets the node's certificate. The answer to an earlier attempt may have been lost after
# the token was used, and then the key is all that there is: the platform is asked whether it knows
# that, and gets the token again only if it says no. No outage removes the key.
register() {
    attempt=1
    if [ ! -s "$ETC/identity.key" ]; then
        attempt=0
        openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 | put 600 "$ETC/identity.key"
    fi
    sync "$ETC/identity.key" "$ETC"
    while :; do
        if [ "$attempt" = 0 ] || { ! resume && unknown; }; then exchange; fi
        if registered; then return; fi
        attempt=$((attempt + 1))
        [ "$attempt" -lt 10 ] || unanswered
        sleep 2
    done
}

# exchange: the token for the certificate.
exchange() {
    printf '{"csr":"%s","operating_system":"linux","architecture":"%s",%s}' \
        "$(signing_request)" "$ARCHITECTURE" "$(host_facts)" >"$WORK/body"
    printf 'Authorization: Bearer %s\n' "$(cat "$ETC/token")" >"$WORK/headers"
    ask /v1/nodes
    case $HTTP in
    201) keep_registration ;;
    401)
        by_platform
        why=$(reason)
        # An attempt that was given up here may have used it there a moment ago.
        if ! resume && unknown; then
            forget && fail 21 "The token was not accepted: $why Make a new worker bootstrap."
        fi
        ;;
    409)
        # Where there are no programs for this server, none come by waiting.
        ! grep -q '"platform":' "$WORK/answer" || { forget && fail 12 "$(reason)"; }
        fail 22 "$(reason) This server tries again every 30 seconds."
        ;;
    429 | 5* | 000) ;;
    *) by_platform && forget && fail 22 "The platform refused this server ($HTTP): $(reason)" ;;
    esac
}

# resume: a fresh certificate for a key that the platform knows.
resume() {
    printf '{"csr":"%s"}' "$(signing_request)" >"$WORK/body"
    ask_signed resume && keep_registration
}

keep_registration() {
    case $(answer node_name) in mch-*) ;; *) fail 22 "The platform's answer cannot be read." ;; esac
    answer cluster_authority | base64 -d | put 644 "$ETC/cluster-ca.crt"
    answer certificate | base64 -d | put 644 "$ETC/node.crt"
    grep -v '^server_time ' "$WORK/answer" | put 600 "$ETC/registration"
    sync "$ETC"/*.crt "$ETC/registration" "$ETC"
    rm -f "$ETC/token"
}

# renew_tokens: the tokens of tunnel, kube-proxy and flannel, bound to this node and good for an
# hour; they are had once the node is in its cluster.
renew_tokens() {
    echo '{}' >"$WORK/body"
    ask_signed tokens || return
    # Without a line feed: the tunnel's agent sends the file as it is.
    answer tunnel_token | tr -d '\n' | put 600 "$TOKENS/tunnel"
    answer kube_proxy_token | tr -d '\n' | put 600 "$TOKENS/kube-proxy"
    answer flannel_token | tr -d '\n' | put 600 "$TOKENS/flannel"
    now=$(date +%s)
    echo $(((now + $(answer expires_at)) / 2)) | put 600 "$TOKENS/renew-at"
}

# tell PHASE CODE MESSAGE: reports to the platform; true if it took that.
tell() {
    {
        printf '{"phase":"%s","code":%s,"message":%s,%s' "$1" "$2" \
            "$(echo "$3" | tr '\n' ' ' | cut -c -400 | quoted)" "$(host_facts)"
        certificate_end client "$(client_certificate)"
        certificate_end serving /var/lib/kubelet/pki/kubelet-server-current.pem
        printf '}'
    } >"$WORK/body"
    ask_signed report
}

tell_all_runs() {
    remember running 0 "All services run."
    tell running 0 "All services run." || unanswered
}

# client_certificate: the one that kubelet renewed, or the first one.
client_certificate() {
    if [ -e "$KUBELET_CERTIFICATE" ]; then echo "$KUBELET_CERTIFICATE"; else echo "$ETC/node.crt"; fi
}

certificate_end() {
    [ -e "$2" ] || return 0
    end=$(openssl x509 -in "$2" -noout -enddate)
    printf ',"%s_certificate_expires_at":%s' "$1" "$(date -d "${end#*=}" +%s)"
}

# obey: does what the answer to a report says.
obey() {
    case $(answer instruction) in
    restart)
        say "restarting, as the platform asks"
        # Where the node was deleted, tokens are to be had once kubelet has made it anew.
        renew_tokens || rm -f "$TOKENS/renew-at"
        # shellcheck disable=SC2086 # a list of names
        systemctl restart $SERVICES
        ;;
    uninstall)
        uninstall
        exit 0
        ;;
    esac
}

# ---------------------------------------------------------------- 5 programs

# hash_present: which programs are there already; while the platform is asked, for it takes a while.
hash_present() {
    find "$BIN" /opt/cni/bin -type f -exec openssl dgst -sha256 -r {} + >"$WORK/present" 2>/dev/null &
}

get_artifacts() {
    value artifact >"$WORK/artifacts"
    wait # for hash_present
    while read -r line; do
        # shellcheck disable=SC2086 # five words
        get_artifact $line
    done <"$WORK/artifacts"
}

# get_artifact NAME SHA256 SIZE MODE PATH: what is there with the right content is not fetched.
get_artifact() {
    case $5 in
    */../*) false ;;
    /opt/bulkhead/bin/* | /opt/cni/bin/*) ;;
    *) false ;;
    esac || fail 22 "The platform wants to put $1 at $5, where no program of a node belongs."
    ! grep -qxF "$2 *$5" "$WORK/present" || return 0
    (umask 022 && mkdir -p "${5%/*}")
    for attempt in 1 2; do
        FETCHED=1
        say "fetching $1 ($(($3 / 1048576)) MiB)"
        web --fail --cacert "$AUTHORITY" --retry 3 --retry-connrefused --speed-limit 1024 \
            --speed-time 60 --output "$5.new" "$URL/v1/artifacts/$2" ||
            fail 31 "$1 cannot be fetched: $(cat "$WORK/error")"
        if [ "$(hash_of "$5.new")" = "$2" ]; then
            chmod "$4" "$5.new"
            # A plugin of the server's owner comes back with `forget`.
            grep -qsxF "$5" "$STATE/fetched" || [ ! -e "$5" ] || cp -p "$5" "$5.before"
            echo "$5" >>"$STATE/fetched"
            mv "$5.new" "$5"
            echo "$5" >>"$RUN/changed"
            return
        fi
        rm "$5.new"
        say "$1 is not what its sha256 says (attempt $attempt)"
    done
    fail 23 "$1 was corrupted on its way, twice; it was not used. Tell the platform's operator."
}

# ---------------------------------------------------------------- 6 configuration

put_configuration() {
    node_ip=$(address_towards "$(value cluster_api_host)")
    kubelet_options=
    [ ! -d /etc/kubernetes/kubelet.conf.d ] || kubelet_options=--config-dir=/etc/kubernetes/kubelet.conf.d
    put 600 "$ETC/node.env" <<EOF
NODE_NAME=$(value node_name)
NODE_IP=$node_ip
TUNNEL_NAME=$(value tunnel_server_name)
TUNNEL_PORT=$(value tunnel_port)
KUBELET_OPTIONS=$kubelet_options
EOF
    note_what_was_before
    put_proxy
    put_kernel_settings
    put_hosts
    kubeconfig kubelet "{\"client-certificate\": \"$ETC/node.crt\", \"client-key\": \"$ETC/identity.key\"}"
    kubeconfig kube-proxy "{\"tokenFile\": \"$TOKENS/kube-proxy\"}"
    put_kubelet
    put_kube_proxy
    put_containerd
    if [ "$(value network_profile)" = linux_bridge ]; then
        kubeconfig flannel "{\"tokenFile\": \"$TOKENS/flannel\"}"
        # Routes between servers of one subnet, VXLAN between others. One server with another type
        # would be cut off: flannel ignores nodes of which it is not the same.
        put 644 "$ETC/flannel.json" <<EOF
{"Network": "$(value pod_network)", "Backend": {"Type": "vxlan", "DirectRouting": true}}
EOF
    fi
}

# For `forget`: which trees are empty, and what the kernel's settings are, also those that kubelet
# and kube-proxy change.
note_what_was_before() {
    if [ ! -e "$STATE/trees" ]; then
        for tree in $TREES; do
            [ -n "$(find "$tree" -mindepth 1 -print -quit 2>/dev/null)" ] || echo "$tree"
        done | put 600 "$STATE/trees"
    fi
    if [ ! -e "$STATE/kernel.before" ]; then
        # Below /proc/sys, but for the last one.
        for key in net/ipv4/ip_forward net/bridge/bridge-nf-call-iptables \
            net/bridge/bridge-nf-call-ip6tables net/ipv4/conf/all/route_localnet \
            vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
            kernel/keys/root_maxkeys kernel/keys/root_maxbytes net/netfilter/nf_conntrack_max \
            net/netfilter/nf_conntrack_tcp_timeout_established \
            net/netfilter/nf_conntrack_tcp_timeout_close_wait \
            ../../sys/module/nf_conntrack/parameters/hashsize; do
            [ ! -e "/proc/sys/$key" ] || echo "$key $(cat "/proc/sys/$key")"
        done | put 600 "$STATE/kernel.before"
    fi
}

# load_modules: those that were absent are written down first, because `forget` unloads them.
load_modules() {
    if [ ! -e "$STATE/modules" ]; then
        for module in $MODULES; do
            has_module "$module" || echo "$module"
        done | put 600 "$STATE/modules"
    fi
    for module in $MODULES; do
        has_module "$module" || modprobe --quiet "$module" || true
        has_module "$module" ||
            fail 14 "The kernel does not load its module $module; see why with: modprobe -v $module"
    done
}

# The proxy is the services' too; it may hold a password, so root alone reads it. What is inside of
# the cluster is known once this server has registered.
put_proxy() {
    [ -n "$PROXY" ] || return 0
    inside=
    ! registered ||
        inside=",localhost,127.0.0.1,$node_ip,$(value service_network),$(value pod_network),.$(value cluster_domain)"
    printf 'HTTPS_PROXY=%s\nNO_PROXY=%s\nOUTSIDE=%s\n' "$PROXY" "$OUTSIDE$inside" "$OUTSIDE" |
        put 600 "$ETC/proxy.env"
}

put_kernel_settings() {
    printf '%s = 1\n' net.ipv4.ip_forward net.bridge.bridge-nf-call-iptables |
        put 644 /etc/sysctl.d/90-bulkhead.conf
    for key in net/ipv4/ip_forward net/bridge/bridge-nf-call-iptables; do
        [ "$(cat "/proc/sys/$key")" = 1 ] || echo 1 >"/proc/sys/$key"
    done
    [ ! -e /proc/modules ] ||
        awk '/^(overlay|br_netfilter|nf_conntrack|vxlan) / { print $1 }' /proc/modules |
        put 644 /etc/modules-load.d/bulkhead.conf
}

# The tunnel's agent finds its server by name; a name that only the platform's entrance knows is
# added to /etc/hosts, which is written in place because it may be a mount.
put_hosts() {
    {
        grep -v '# bulkhead$' /etc/hosts || true
        host=$(value tunnel_host)
        [ "$host" = "$(value tunnel_server_name)" ] || echo "$host $(value tunnel_server_name) # bulkhead"
    } >"$WORK/hosts"
    cmp -s "$WORK/hosts" /etc/hosts || cat "$WORK/hosts" >/etc/hosts
}

# kubeconfig NAME USER: how NAME reaches the cluster's API; JSON is YAML as well.
kubeconfig() {
    put 600 "$ETC/$1.kubeconfig" <<EOF
{"apiVersion": "v1", "kind": "Config", "current-context": "cluster",
 "clusters": [{"name": "cluster", "cluster": {
   "server": "https://$(value cluster_api_host):$(value cluster_api_port)",
   "tls-server-name": "$(value cluster_api_server_name)",
   "certificate-authority": "$ETC/cluster-ca.crt"}}],
 "users": [{"name": "node", "user": $2}],
 "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": "node"}}]}
EOF
}

put_kubelet() {
    # systemd owns the groups where there is one hierarchy; elsewhere two drivers would fight.
    driver=cgroupfs
    [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ] || driver=systemd
    resolv=/run/systemd/resolve/resolv.conf
    [ -e "$resolv" ] || resolv=/etc/resolv.conf
    put 600 "$ETC/kubelet.yaml" <<EOF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $ETC/cluster-ca.crt}
authorization: {mode: Webhook}
cgroupDriver: $driver
clusterDNS: [$(value cluster_dns)]
clusterDomain: $(value cluster_domain)
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
readOnlyPort: 0
resolvConf: $resolv
rotateCertificates: true
serverTLSBootstrap: true
tlsMinVersion: VersionTLS12
volumePluginDir: /var/lib/kubelet/volume-plugins
EOF
}

put_kube_proxy() {
    put 600 "$ETC/kube-proxy.yaml" <<EOF
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $ETC/kube-proxy.kubeconfig}
clusterCIDR: $(value pod_network)
healthzBindAddress: 127.0.0.1:10256
hostnameOverride: $(value node_name)
metricsBindAddress: 127.0.0.1:10249
mode: iptables
EOF
}

put_containerd() {
    put 600 "$ETC/containerd.toml" <<EOF
version = 3
imports = ["/etc/containerd/conf.d/*.toml"]

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "$(value pause_image)"

[plugins.'io.containerd.cri.v1.images'.registry]
config_path = "$ETC/certs.d"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = "$BIN/runc"
SystemdCgroup = $([ "$driver" = systemd ] && echo true || echo false)

# Left alone, these two would make directories below /opt and /var/run.
[plugins.'io.containerd.internal.v1.opt']
path = "/var/lib/containerd/opt"

[plugins.'io.containerd.nri.v1.nri']
disable = true
EOF
    registry=$(value registry)
    [ -n "$registry" ] || return 0
    mkdir -p "$ETC/certs.d/$registry"
    put 600 "$ETC/certs.d/$registry/hosts.toml" <<EOF
server = "https://$registry"

[host."https://$registry"]
capabilities = ["pull", "resolve"]
ca = "$ETC/platform-ca.crt"
EOF
}

# ---------------------------------------------------------------- 7 services

# put_unit NAME WHAT FILE: a service that starts once FILE is there; its own lines are standard input.
put_unit() {
    {
        printf '[Unit]\nDescription=Bulkhead: %s\nConditionPathExists=%s\n' "$2" "$3"
        printf 'After=network-online.target\nWants=network-online.target\nStartLimitIntervalSec=0\n\n'
        printf '[Service]\nRestart=always\nRestartSec=1\nEnvironmentFile=-%s\nEnvironmentFile=-%s\n' \
            "$ETC/node.env" "$ETC/proxy.env"
        printf 'Environment=PATH=%s:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n' "$BIN"
        cat
        printf '\n[Install]\nWantedBy=multi-user.target\n'
    } | put 644 "$UNITS/bulkhead-$1.service"
}

# What the three services beside kubelet and containerd may not do.
HARDENED="NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ProtectKernelModules=yes
RestrictSUIDSGID=yes
LockPersonality=yes"

# The timer is there before the token is used: what a power cut interrupts, it goes on with.
put_units() {
    put_unit containerd "container runtime" "$ETC/containerd.toml" <<EOF
Type=notify
ExecStart=$BIN/containerd --config $ETC/containerd.toml
KillMode=process
Delegate=yes
LimitNOFILE=1048576
TasksMax=infinity
OOMScoreAdjust=-999
EOF
    put_unit kubelet "kubelet" "$ETC/kubelet.kubeconfig" <<EOF
ExecStart=$BIN/kubelet --config=$ETC/kubelet.yaml --kubeconfig=$ETC/kubelet.kubeconfig --hostname-override=\${NODE_NAME} --node-ip=\${NODE_IP} \$KUBELET_OPTIONS
KillMode=process
OOMScoreAdjust=-999

[Unit]
After=bulkhead-containerd.service
Wants=bulkhead-containerd.service
EOF
    put_unit tunnel "the way in from the control plane" "$TOKENS/tunnel" <<EOF
ExecStart=$BIN/konnectivity-agent --v=2 --ca-cert=$ETC/cluster-ca.crt --proxy-server-host=\${TUNNEL_NAME} --proxy-server-port=\${TUNNEL_PORT} --service-account-token-path=$TOKENS/tunnel --agent-identifiers=ipv4=\${NODE_IP} --admin-bind-address=127.0.0.1 --admin-server-port=8133 --health-server-host=127.0.0.1 --health-server-port=8134
# Asked to end, it would wait for its streams without an end.
KillSignal=SIGKILL
SuccessExitStatus=SIGKILL
CapabilityBoundingSet=
PrivateDevices=yes
ProtectControlGroups=yes
ProtectKernelTunables=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
$HARDENED
EOF
    put_unit kube-proxy "Services of the cluster" "$TOKENS/kube-proxy" <<EOF
ExecStart=$BIN/kube-proxy --config=$ETC/kube-proxy.yaml
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_SYS_RESOURCE
ReadWritePaths=/run
$HARDENED
EOF
    put_unit flannel "pod network" "$ETC/flannel.json" <<EOF
ExecStart=$BIN/flanneld --kube-subnet-mgr --kubeconfig-file=$ETC/flannel.kubeconfig --net-config-path=$ETC/flannel.json --public-ip=\${NODE_IP} --iface=\${NODE_IP} --ip-masq
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW
ReadWritePaths=/run
$HARDENED
EOF
    put 644 "$UNITS/bulkhead-node.service" <<EOF
[Unit]
Description=Bulkhead: report, renewals, and whatever of the setup is not done yet
After=network-online.target
Wants=network-online.target

[Service]
Type=oneshot
ExecStart=$SELF report
EOF
    put 644 "$UNITS/bulkhead-node.timer" <<EOF
[Unit]
Description=Bulkhead: every 30 seconds

[Timer]
OnBootSec=1
OnUnitActiveSec=30
AccuracySec=1

[Install]
WantedBy=timers.target
EOF
    # The timer's link is made last of all, so it stands for the others. Units that were never
    # loaded need no reload, which takes longer than everything else here.
    # shellcheck disable=SC2086 # lists of names
    if [ ! -e "$UNITS/timers.target.wants/bulkhead-node.timer" ]; then
        systemctl enable --quiet --no-reload $SERVICES bulkhead-node.timer
    elif grep -q "^$UNITS/" "$RUN/changed"; then
        systemctl enable --quiet $SERVICES bulkhead-node.timer
    fi
    systemctl start bulkhead-node.timer
}

# start NAME OTHERS: starts a service, or starts it again if a file that it reads was changed: one
# with its name, one of OTHERS, or one that all of them read.
start() {
    files="(bulkhead-)?$1|$2|node\\.env|proxy\\.env|cluster-ca"
    if systemctl is-active --quiet "bulkhead-$1" && grep -qE "/($files)[^/]*\$" "$RUN/changed"; then
        say "restarting $1"
        systemctl restart "bulkhead-$1"
    else
        systemctl start "bulkhead-$1" ||
            fail 24 "bulkhead-$1 does not start; see why with: journalctl -u bulkhead-$1"
    fi
}

# ---------------------------------------------------------------- 8 joining

install() {
    lock
    hash_present
    if registered; then
        put 755 "$SELF" <"$0"
        put_units
        say "This server is $(value node_name) of cluster $(value cluster_id) already; no token is used."
    else
        case $URL in https://?*) ;; *) usage "--url must be an https:// address." ;; esac
        [ -n "$AUTHORITY_SHA256" ] || usage "--authority-sha256 is needed."
        say "checking this server"
        check_server
        check_way_to_platform
        read_token
        mkdir -p "$ETC" "$TOKENS"
        chmod 700 "$ETC"
        echo "$TOKEN" | put 600 "$ETC/token"
        TOKEN=
        put 644 "$ETC/platform-ca.crt" <"$AUTHORITY"
        echo "$URL" | put 644 "$ETC/url"
        put_proxy
        put 755 "$SELF" <"$0"
        put_units
        sync "$ETC"/* "$ETC" "$SELF" "$UNITS"/bulkhead-*
    fi
    join
}

# read_token: from the file, which is removed, or from standard input.
read_token() {
    if [ -n "$TOKEN_FILE" ]; then
        TOKEN=$(cat "$TOKEN_FILE") || fail 2 "There is no token in $TOKEN_FILE."
        [ "$TOKEN_FILE" = "$ETC/token" ] || rm "$TOKEN_FILE"
    else
        [ ! -t 0 ] || say "paste the token, then Enter:"
        read -r TOKEN || true
    fi
    case $TOKEN in
    bulkhead_wbt_*[!0-9A-Za-z]*) ;;
    bulkhead_wbt_*) return ;;
    esac
    fail 2 "What was given is not a token of a worker bootstrap."
}

# join: the rest of the way, from wherever it was left.
join() {
    use_what_is_known
    load_modules
    if ! registered; then
        check_architecture || fail $? "$MESSAGE"
        say "registering at $URL"
        register
    elif [ ! -e "$STATE/installed" ]; then
        # What the platform said then may be old: the certificate, and what is reached where.
        resume || unanswered
    fi
    say "this server is $(value node_name)"
    endpoints
    check_ways_to_cluster
    get_artifacts
    [ -z "$FETCHED" ] || tell downloaded 0 "" || unanswered
    put_configuration
    say "starting containerd and kubelet"
    start containerd 'runc|hosts\.toml'
    start kubelet 'identity|node\.crt'
    tell kubelet_started 0 "" || unanswered
    say "waiting for the node in its cluster"
    tries=0
    until renew_tokens; do
        [ "$HTTP" != 401 ] || refused
        tries=$((tries + 1))
        [ "$tries" -lt 64 ] || fail 27 "The node did not appear in its cluster: $(reason) See: journalctl -u bulkhead-kubelet"
        if [ "$tries" -lt 40 ]; then sleep 0.25; else sleep 5; fi
    done
    say "starting pod network, tunnel and kube-proxy"
    [ ! -e "$ETC/flannel.json" ] || start flannel flanneld
    start tunnel konnectivity-agent
    start kube-proxy kube-proxy
    [ ! -e "$ETC/flannel.json" ] || await_pod_network
    : >"$RUN/changed"
    sync -f "$ETC" "$STATE" "$BIN"
    value node_name | put 644 "$STATE/installed"
    tell_all_runs
    say "done; see how this server is doing with: bulkhead-node status"
}

# The node becomes ready when containerd finds the network's file, so that one comes last.
await_pod_network() {
    tries=0
    until put_network; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || fail 24 "bulkhead-flannel does not get its pods' network; see: journalctl -u bulkhead-flannel"
        sleep 0.2
    done
}

# put_network: a bridge for the pods of this server; flannel, once it runs, tells their addresses.
put_network() {
    if [ -s /run/flannel/subnet.env ]; then
        mtu=$(sed -n 's/^FLANNEL_MTU=//p' /run/flannel/subnet.env)
        subnet=$(sed -n 's/^FLANNEL_SUBNET=//p' /run/flannel/subnet.env |
            awk -F '[./]' '{ print $1 "." $2 "." $3 "." $4 - 1 "/" $5 }')
    else
        pod_network_of_node || return 1
    fi
    (umask 022 && mkdir -p "${NETWORK%/*}")
    put 644 "$NETWORK" <<EOF
{"cniVersion": "1.0.0", "name": "bulkhead", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "hairpinMode": true,
   "forceAddress": true, "mtu": $mtu,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "$subnet"}]],
            "routes": [{"dst": "$(value pod_network)"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
EOF
}

# pod_network_of_node: what flannel will tell, a second earlier: its first look takes that long.
pod_network_of_node() {
    name=$(value cluster_api_server_name)
    port=$(value cluster_api_port)
    web --fail --max-time 10 --cacert "$ETC/cluster-ca.crt" --cert "$ETC/node.crt" \
        --key "$ETC/identity.key" --connect-to "$name:$port:$(value cluster_api_host):$port" \
        --output "$WORK/node" "https://$name:$port/api/v1/nodes/$(value node_name)" || return 1
    subnet=$(sed -n 's/.*"podCIDR": *"\([0-9./]*\)".*/\1/p' "$WORK/node")
    device=$(ip -o -4 address show | awk -v own="$node_ip/" 'index($4, own) == 1 { print $2; exit }')
    mtu=$(ip -o link show dev "${device:-lo}" | sed -n 's/.* mtu \([0-9]*\) .*/\1/p')
    mtu=$((mtu - 50)) # what VXLAN's own headers take
    [ -n "$subnet" ] && [ "$mtu" -gt 0 ]
}

# ---------------------------------------------------------------- 9 afterwards

# report: what the timer does.
report() {
    lock -n || return 0
    use_what_is_known
    if [ ! -e "$STATE/installed" ] || has_moved; then
        hash_present
        join
        return
    fi
    # Kubelet renews it long before; this is for a server that was off, or cut off, until it ended.
    if ! openssl x509 -in "$(client_certificate)" -noout -checkend 120 >/dev/null; then
        say "the node's certificate has ended; getting another"
        if resume; then
            rm -f "$KUBELET_CERTIFICATE"
            systemctl restart bulkhead-kubelet
        fi
    fi
    # What does not work now does with the next turn; the report goes out in any case.
    [ "$(date +%s)" -lt "$(cat "$TOKENS/renew-at" 2>/dev/null || echo 0)" ] || renew_tokens || say "no new tokens: $(reason)"
    put_hosts
    [ ! -s /run/flannel/subnet.env ] || put_network
    down=
    for service in $SERVICES; do
        [ "$service" = bulkhead-flannel ] && [ ! -e "$ETC/flannel.json" ] && continue
        # One that ends again and again is "activating" nearly all the time.
        case $(systemctl is-active "$service" || true) in
        active) ;;
        activating) down="$down $service" ;;
        *) systemctl start "$service" || down="$down $service" ;;
        esac
    done
    [ -z "$down" ] || fail 24 "Not running:$down. See why with: journalctl -u SERVICE"
    curl --disable --silent --fail --noproxy '*' --max-time 5 --output /dev/null \
        http://127.0.0.1:8134/readyz ||
        fail 33 "The tunnel is not connected, so that logs and exec fail. See why with: journalctl -u bulkhead-tunnel"
    tell_all_runs
    obey
}

# has_moved: whether this server has an address that its services do not know yet.
has_moved() {
    own=$(address_towards "$(value cluster_api_host)")
    case $own in '' | "$(sed -n 's/^NODE_IP=//p' "$ETC/node.env")") return 1 ;; esac
    say "this server has the address $own now"
}

check() {
    SHOW=1
    ! registered || AUTHORITY_SHA256=$(hash_of "$AUTHORITY")
    [ -z "$AUTHORITY_SHA256" ] || [ -n "$URL" ] || usage "--authority-sha256 needs --url too."
    check_server
    if [ -n "$AUTHORITY_SHA256" ]; then
        check_way_to_platform
    else
        echo "endpoints not checked: no --authority-sha256"
    fi
    ! registered || check_ways_to_cluster
    exit "$FIRST"
}

endpoints() {
    [ -n "$URL" ] || usage "--url is needed while this server is no node."
    echo "This server must be able to open these connections (TCP, TLS):"
    echo "  ${URL#https://}  the platform's API"
    if registered; then
        echo "  $(value cluster_api_host):$(value cluster_api_port)  the API of its cluster"
        ! has_pods_port ||
            echo "  $(value cluster_api_host):$(value pods_api_port)  the same for pods, which go past any proxy"
        echo "  $(value tunnel_host):$(value tunnel_port)  the tunnel of its cluster"
        [ -z "$(value registry)" ] || echo "  $(value registry)  the platform's registry"
    else
        echo "  the API and the tunnel of its cluster, and the registry: named once it has registered"
    fi
}

status() {
    code=0
    if [ -e "$RUN/state" ]; then
        cat "$RUN/state"
        [ "$(sed -n 1p "$RUN/state")" != "phase failed" ] || code=$(sed -n '2s/^code //p' "$RUN/state")
    fi
    for service in $SERVICES bulkhead-node.timer; do
        printf '%s %s\n' "$service" "$(systemctl is-active "$service" || true)"
    done
    exit "$code"
}

# ---------------------------------------------------------------- 10 leaving

# uninstall: ends what runs, gives back what was changed, removes every file.
uninstall() {
    lock
    # Whatever kubelets and runtimes are here, they are somebody else's.
    if [ ! -d "$ETC" ] && [ ! -d "$STATE" ]; then
        forget
        say "done: nothing was installed here."
        return
    fi
    say "stopping services and pods"
    systemctl disable --now --quiet bulkhead-node.timer bulkhead-kubelet 2>/dev/null || true
    if [ -x "$BIN/runc" ]; then
        for pod in $("$BIN/runc" --root /run/containerd/runc/k8s.io list --quiet 2>/dev/null); do
            "$BIN/runc" --root /run/containerd/runc/k8s.io delete --force "$pod" || true
        done
    fi
    systemctl kill --signal=KILL bulkhead-containerd 2>/dev/null || true
    # shellcheck disable=SC2086 # a list of names
    systemctl disable --now --quiet $SERVICES 2>/dev/null || true
    systemctl stop kubepods.slice 2>/dev/null || true
    find /sys/fs/cgroup -depth -type d -path '*/kubepods*' -exec rmdir {} + 2>/dev/null || true
    say "giving back network and kernel settings"
    [ ! -x "$BIN/kube-proxy" ] || "$BIN/kube-proxy" --cleanup >/dev/null 2>&1 || true
    for tables in iptables ip6tables; do
        "$tables-save" --counters >"$WORK/tables" 2>/dev/null || continue
        without_our_rules "$WORK/tables" >"$WORK/tables.after"
        cmp -s "$WORK/tables" "$WORK/tables.after" ||
            "$tables-restore" --counters <"$WORK/tables.after" || true
    done
    for namespace in /run/netns/cni-*; do
        [ ! -e "$namespace" ] || ip netns delete "${namespace##*/}"
    done
    for link in cni0 flannel.1; do ip link delete "$link" 2>/dev/null || true; done
    if registered; then
        ip -4 route show root "$(value pod_network)" | while read -r route; do
            # shellcheck disable=SC2086 # a route is several words
            ip route delete $route || true
        done
    fi
    if [ -e "$STATE/kernel.before" ]; then
        while read -r key before; do
            [ "$(cat "/proc/sys/$key")" = "$before" ] || echo "$before" >"/proc/sys/$key" || true
        done <"$STATE/kernel.before"
    fi
    say "unmounting volumes"
    awk '$2 ~ "^/(var/lib/kubelet|var/lib/containerd|run/containerd)/" { print $2 }' /proc/mounts |
        sort -r | while read -r place; do umount "$place" || true; done
    # What is still mounted is somebody's data: nothing below it may be removed.
    if grep -qE ' (/var/lib/kubelet|/run/containerd)/' /proc/mounts; then
        fail 26 "Volumes below /var/lib/kubelet cannot be unmounted; end what uses them and run this again."
    fi
    ! registered || tell uninstalled 0 "" ||
        say "the platform did not take the last report ($HTTP); that does no harm"
    forget
    say "done: what was installed is removed. Packages were never installed, and none was removed."
}

# without_our_rules TABLES: them without the chains of kubelet, kube-proxy, flannel and our pods.
# Other programs use CNI too: of its chains those of our pods' ports go, by the network's name in
# their rules, and the ones that all share only when nobody else has a port in them.
without_our_rules() {
    # shellcheck disable=SC2016 # of awk
    awk '
        function ours(chain) {
            return chain ~ /^KUBE-/ || chain ~ /^FLANNEL-(FWD|POSTRTG)$/ || chain in pods ||
                (!others && chain ~ /^CNI-HOSTPORT-(DNAT|SNAT|MASQ|SETMARK)$/)
        }
        function after(flag, i) {
            for (i = 1; i < NF; i++) if ($i == flag) return $(i + 1)
            return ""
        }
        NR == FNR {
            if (after("-A") != "CNI-HOSTPORT-DNAT") next
            if (index($0, "name: \\\"bulkhead\\\" id:")) pods[after("-j")] = 1
            else others = 1
            next
        }
        { chain = /^:/ ? substr($1, 2) : after("-A") }
        !ours(chain) && !ours(after("-j"))' "$1" "$1"
}

# forget: removes every file that this script or the services made.
forget() {
    # shellcheck disable=SC2086 # a list of names
    systemctl disable --now --quiet bulkhead-node.timer $SERVICES 2>/dev/null || true
    [ ! -e "$STATE/fetched" ] || while read -r program; do
        rm -f "$program"
        [ ! -e "$program.before" ] || mv "$program.before" "$program"
    done <"$STATE/fetched"
    # One that something else needs by now stays.
    [ ! -e "$STATE/modules" ] || while read -r module; do
        modprobe --remove --quiet "$module" || true
    done <"$STATE/modules"
    if [ -e /etc/hosts ] && grep -q '# bulkhead$' /etc/hosts; then
        grep -v '# bulkhead$' /etc/hosts >"$WORK/hosts" || true
        cat "$WORK/hosts" >/etc/hosts
    fi
    for tree in $TREES; do
        if ! grep -qsxF "$tree" "$STATE/trees"; then
            [ ! -e "$STATE/trees" ] || say "$tree is left: it was not empty before"
            continue
        fi
        [ ! -d "$tree" ] || find "$tree" -xdev -mindepth 1 -delete || true
        rmdir "$tree" 2>/dev/null || true
    done
    rm -f "$NETWORK" "$UNITS"/bulkhead-*.service "$UNITS/bulkhead-node.timer" \
        /etc/sysctl.d/90-bulkhead.conf /etc/modules-load.d/bulkhead.conf \
        /var/lib/cloud/scripts/per-boot/bulkhead-node
    rm -rf "$STATE" "$ETC" "$RUN" "$SELF"
    rmdir /run/netns /etc/cni/net.d /etc/cni /opt/cni/bin /opt/cni "$BIN" "${BIN%/*}" 2>/dev/null || true
    systemctl daemon-reload
    systemctl reset-failed 'bulkhead-*' 2>/dev/null || true
}

# ---------------------------------------------------------------- the start of it all

main() {
    URL='' AUTHORITY_SHA256='' TOKEN_FILE='' AUTHORITY='' SHOW='' FIRST=0 FETCHED='' COMMAND=install
    case ${1:-} in
    install | check | endpoints | status | report | uninstall) COMMAND=$1 && shift ;;
    esac
    while [ $# -gt 0 ]; do
        case $1 in
        -h | --help) help && exit 0 ;;
        --uninstall) COMMAND=uninstall && shift && continue ;;
        --url | --authority-sha256 | --token-file) [ $# -gt 1 ] || usage "$1 needs a value." ;;
        *) usage "There is no option $1." ;;
        esac
        case $1 in
        --url) URL=${2%/} ;;
        --authority-sha256) AUTHORITY_SHA256=$2 ;;
        --token-file) TOKEN_FILE=$2 ;;
        esac
        shift 2
    done
    if [ "$(id -u)" != 0 ]; then
        say "Run this as root." >&2
        exit 10
    fi
    use_proxy
    WORK=$(mktemp -d "/run/bulkhead.XXXXXX")
    trap 'rm -rf "$WORK"' EXIT
    trap 'exit 1' HUP INT TERM
    # A power cut while `forget` removed everything may have left the one without the other.
    if registered && [ -s "$ETC/url" ]; then use_what_is_known; fi
    "$COMMAND"
}

main "$@"
