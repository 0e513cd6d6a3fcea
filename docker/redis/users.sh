#!/bin/sh
# Prints the users of users.acl as redis-server reads them, with passwords from the environment:
#   REDIS_PRODUCER_PASSWORD=... REDIS_GATEWAY_PASSWORD=... REDIS_WORKER_PASSWORD=... \
#   REDIS_FLOWER_PASSWORD=... REDIS_SCALER_PASSWORD=... REDIS_OPERATOR_PASSWORD=... \
#   users.sh > /run/users.acl
# They are written as SHA-256 alone. A user whose password is not set is off.
set -eu
rules=${1:-"$(dirname "$0")/users.acl"}

connecting="+hello +ping +select +client|setname +multi +exec +discard +watch"
connecting="$connecting +unwatch +eval +evalsha +script|load +script|exists"
records="+time +get +set +del +exists +incr +pexpire +pttl +publish +subscribe +unsubscribe"
records="$records +hget +hset +hdel +hmget +hgetall +hsetnx +hexists +hincrby +hstrlen"
records="$records +sadd +srem +smembers +xadd +xtrim +zadd +zrem +zscore +zcount +zrange"
records="$records +zrangebyscore +zrevrange +zrevrangebyscore +zremrangebyrank +zremrangebyscore"

# A line that begins with a space belongs to the one before.
awk '/^#/ || /^$/ { next } /^ / { printf "%s", $0; next } n++ { print "" } { printf "%s", $0 }
     END { print "" }' "$rules" |
    while read -r line; do
        name=${line#user }
        name=${name%% *}
        variable=REDIS_$(printf %s "$name" | tr '[:lower:]' '[:upper:]')_PASSWORD
        eval "password=\${$variable:-}"
        if [ -n "$password" ]; then
            kept=\#$(printf %s "$password" | sha256sum | cut -d' ' -f1)
        else
            line=$(printf %s "$line" | sed 's/ on PASSWORD/ off/')
            kept=
        fi
        printf '%s\n' "$line" |
            sed "s/ PASSWORD/ $kept/; s/ CONNECTING/ $connecting/; s/ RECORDS/ $records/; s/  */ /g"
    done
