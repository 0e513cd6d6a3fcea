#!/bin/sh
# Prints the users of users.acl as redis-server reads them, with passwords from the environment:
#   REDIS_PRODUCER_PASSWORD=... REDIS_GATEWAY_PASSWORD=... REDIS_WORKER_PASSWORD=... \
#   REDIS_FLOWER_PASSWORD=... REDIS_SCALER_PASSWORD=... REDIS_OPERATOR_PASSWORD=... \
#   REDIS_REPLICA_PASSWORD=... REDIS_SENTINEL_PASSWORD=... \
#   users.sh > /run/users.acl
# They are written as SHA-256 alone. A user whose password is not set is off.
set -eu
rules=${1:-"$(dirname "$0")/users.acl"}

# To connect, and to call scripts, of which each command is held to the rights as well.
connecting="+@connection -@dangerous -client|tracking +multi +exec +discard"
connecting="$connecting +eval +evalsha +script|load +script|exists"
# Jobs, batches, callbacks, and being told that a job has ended.
records="~captionq:job:* ~captionq:jobs ~captionq:open* ~captionq:items:* ~captionq:batch:*"
records="$records ~captionq:counted:* ~captionq:callback:* ~captionq:callbacks*"
records="$records ~captionq:results \&captionq:done:*"
records="$records +time +exists +pexpire +pttl +publish"
records="$records +hget +hset +hdel +hmget +hgetall +hsetnx +hexists +hincrby +hstrlen"
records="$records +sadd +xadd +zadd +zrem +zcount +zrevrangebyscore"
records="$records +zremrangebyrank +zremrangebyscore"
records="$records (+del ~captionq:job:* ~captionq:items:* ~captionq:callback:*)"
records="$records (+get +smembers +srem ~captionq:worker:* ~captionq:workers)"
records="$records (+subscribe +unsubscribe \&captionq:done:* \&captionq:running:*)"
# Messages into queues, as Celery sends them, and the event that says so.
sending="(+lpush +llen ~captionq.caption* ~captionq.match* ~celery ~celery??[369])"
sending="$sending (+sadd +smembers ~_kombu.binding.captionq.* ~_kombu.binding_permanent.captionq.*"
sending="$sending ~_kombu.binding.celery ~_kombu.binding_permanent.celery)"
sending="$sending (+publish \&/0.celeryev/task.sent)"

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
            sed "s, PASSWORD, $kept,; s, CONNECTING, $connecting,; s, RECORDS, $records,
                 s, SENDING, $sending,; s/  */ /g"
    done
