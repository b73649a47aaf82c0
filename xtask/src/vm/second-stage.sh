# (Above: PATH, HOME, directory, modules, command.)
# Makes a plain machine of the guest, runs the command, says how it ended.
rm -f /.second-stage
export TMPDIR=/var/tmp SLUICE_VM=1
# The root is an overlay, and an overlay's upper directory cannot be on one: whoever mounts overlays works in these.
for fresh in /run /mnt /var/tmp; do
    case $directory/ in $fresh/*) continue ;; esac # what is run must stay in sight
    mkdir -p $fresh
    mount -t tmpfs tmpfs $fresh
done
mkdir -p /run/lock /run/netns /dev/pts /dev/shm /lib/modules
mount -t devpts -o ptmxmode=666 devpts /dev/pts
mount -t tmpfs shm /dev/shm
ln -sf /proc/self/fd /dev/fd
ln -sf fd/0 /dev/stdin
ln -sf fd/1 /dev/stdout
ln -sf fd/2 /dev/stderr
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo +$controller > /sys/fs/cgroup/cgroup.subtree_control
done
mount -t bpf bpf /sys/fs/bpf
mount -t securityfs securityfs /sys/kernel/security 2>/dev/null
mount --bind "$modules" /lib/modules
modprobe loop # systemd makes its control node elsewhere, which loads it
for port in /sys/class/virtio-ports/*; do
    case $(cat $port/name) in
        output) output=/dev/${port##*/} ;;
        result) result=/dev/${port##*/} ;;
    esac
done
hostname guest
ip link set lo up
cd "$directory" || cd /
echo begun > $result
setsid -w "${command[@]}" < /dev/null > $output 2>&1
echo $? > $result
sync
busybox poweroff -f
