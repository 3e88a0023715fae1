#!/bin/sh
# boot.sh SCRATCH CGROUP NSPAWN-OPTION… : boots systemd on an overlay of / .
#
# The caller runs it in a mount namespace of its own (unshare --mount), so that the mounts end with the process. CGROUP is
# an empty cgroup made for it, or "-" on a machine that systemd runs, where nspawn asks for a scope.
set -eu
scratch=$1
cgroup=$2
shift 2

if [ "$cgroup" = - ]; then
    keep_unit=
else
    echo $$ >"$cgroup/cgroup.procs"
    keep_unit=--keep-unit
    mkdir -p /run/systemd/nspawn
    mount -t tmpfs nspawn /run/systemd/nspawn
fi

mount -t tmpfs -o size=512m,mode=0755 overlay "$scratch"
mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
mount -t overlay -o "lowerdir=/,upperdir=$scratch/upper,workdir=$scratch/work" overlay "$scratch/root"

# nspawn stops its container on SIGTERM, which it gets when the test goes, however it goes. Its own filter would take the
# kernel keyrings away, which a service has on a real machine.
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
exec setpriv --pdeathsig TERM \
    systemd-nspawn --boot --quiet --directory="$scratch/root" --register=no $keep_unit --link-journal=no \
    --console=pipe --resolv-conf=off --timezone=off --system-call-filter=@keyring "$@"
