#!/bin/busybox sh
# Finds the machine's file tree, puts a tmpfs over it and goes there.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in /mod/*.ko; do insmod "$module" 2>/dev/null; done
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=524288,cache=loose root /host || poweroff -f
mount -t tmpfs -o size=75% tmpfs /up
mkdir /up/upper /up/work
mount -t overlay -o lowerdir=/host,upperdir=/up/upper,workdir=/up/work overlay /new || poweroff -f
for directory in proc sys dev; do
    mkdir -p /new/$directory
    mount --move /$directory /new/$directory
done
cp /second-stage /new/.second-stage
exec switch_root /new /bin/bash /.second-stage
