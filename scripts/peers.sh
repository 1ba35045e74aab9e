#!/bin/sh
# Installs the real Prometheus, Alertmanager (with amtool), Redis and RabbitMQ that tests and benchmarks talk to, and
# the Chromium that opens the web page. Called by the Makefile.
#
# Where it can't, it prints the line to type and goes on: the tests that need them then say that they were skipped.
# Their services are not left running: they would hold the ports 9090, 9093, 6379 and 5672.
set -eu

have() { command -v "$1" >/dev/null 2>&1; }
have_all() { have prometheus && have prometheus-alertmanager && have amtool && have redis-server && have_rabbitmq && have chromium; }
# Outside the PATH of most users, and of no use to them without its folder.
have_rabbitmq() { [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ]; }

have_all && exit 0
# A browser without any font lays nothing out.
packages="prometheus prometheus-alertmanager redis-server rabbitmq-server fonts-dejavu-core chromium"
if ! have apt-get; then
    echo "Prometheus, Alertmanager, amtool, redis-server, rabbitmq-server and chromium are not all here; the tests that need them are skipped. Install them from prometheus.io/download, redis.io and rabbitmq.com." >&2
    exit 0
fi
if [ "$(id -u)" != 0 ]; then
    echo "Prometheus, Alertmanager, amtool, redis-server, rabbitmq-server and chromium are not all here; the tests that need them are skipped. Type:" >&2
    echo "  sudo apt-get update && sudo apt-get install --no-install-recommends $packages" >&2
    exit 0
fi

echo "installing Debian's $packages (once)"
# Debian starts a service when it is installed, unless this file says no.
policy=/usr/sbin/policy-rc.d
own_policy=
log=$(mktemp)
tidy() {
    [ -z "$own_policy" ] || rm -f "$policy"
    rm -f "$log"
}
trap tidy EXIT
trap 'exit 1' HUP INT TERM
if [ ! -e "$policy" ]; then
    own_policy=yes
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
# One after the other: one that can't be had keeps no other away.
failed=
apt-get update >"$log" 2>&1 || true
for package in $packages; do
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$package" >"$log" 2>&1 || failed="$failed $package"
done
if [ -n "$failed" ]; then
    tail -n 5 "$log" >&2
    echo "apt-get could not install$failed; the tests that need them are skipped" >&2
fi
# Nor at the next boot, where there is a systemd.
if [ -d /run/systemd/system ]; then
    systemctl disable --now prometheus prometheus-alertmanager redis-server rabbitmq-server >/dev/null 2>&1 || true
fi
