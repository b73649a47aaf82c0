"""What is asked of containers less often: many wishes at once, sockets, archives, waits, limits, networks, prunes."""

import io
import json
import tarfile
import time
import unittest

import docker


class More(unittest.TestCase):
    def setUp(self):
        self.client = docker.from_env()
        self.api = self.client.api
        self.addCleanup(self.client.close)
        self.addCleanup(self.remove_all)

    def remove_all(self):
        for container in self.client.containers.list(all=True):
            container.remove(force=True, v=True)
        for network in self.client.networks.list():
            if network.name not in ("bridge", "host", "none"):
                network.remove()
        self.client.volumes.prune(filters={"all": "true"})

    def asleep(self, **wishes):
        return self.client.containers.run("busybox", "sleep 1000", detach=True, **wishes)

    def test_many_wishes_are_granted_at_once(self):
        container = self.asleep(
            auto_remove=True,
            cap_add=["NET_ADMIN"],
            cap_drop=["MKNOD"],
            cgroup_parent=None,
            cpu_period=50000,
            cpu_quota=25000,
            cpu_shares=512,
            cpuset_cpus="0",
            device_cgroup_rules=["c 1:3 rwm"],
            devices=["/dev/null:/dev/zilch:rwm"],
            dns=["1.1.1.1"],
            dns_opt=["ndots:1"],
            dns_search=["example.org"],
            domainname="example.org",
            entrypoint=None,
            environment=["A=b"],
            group_add=["5"],
            healthcheck={"test": ["CMD", "true"], "interval": 1000000000},
            init=True,
            ipc_mode="private",
            labels=["tier"],
            log_config=docker.types.LogConfig(type="json-file", config={"max-size": "1m"}),
            mem_limit="64m",
            mem_reservation="32m",
            memswap_limit="128m",
            oom_score_adj=100,
            pids_limit=50,
            read_only=True,
            security_opt=["no-new-privileges"],
            shm_size="1m",
            stdin_open=True,
            stop_signal="INT",
            sysctls={"net.ipv4.ip_default_ttl": "9"},
            tmpfs={"/scratch": ""},
            tty=False,
            ulimits=[docker.types.Ulimit(name="nofile", soft=100, hard=200)],
            user="ada",
            working_dir="/tmp",
        )
        script = "id -un; id -G; pwd; ulimit -n; cat /proc/sys/net/ipv4/ip_default_ttl; touch /no 2>&1; ls -d /scratch /dev/zilch; cat /proc/1/comm"
        code, output = container.exec_run(["sh", "-c", script])
        self.assertEqual(code, 0, output)
        lines = output.decode().splitlines()
        self.assertEqual((lines[0], lines[2], lines[3], lines[4]), ("ada", "/tmp", "100", "9"))
        self.assertIn("5", lines[1].split())
        self.assertIn("Read-only file system", lines[5])
        self.assertIn("/scratch", lines)
        self.assertIn("/dev/zilch", lines)
        wishes = container.attrs["HostConfig"]
        self.assertEqual((wishes["CpuQuota"], wishes["PidsLimit"], wishes["OomScoreAdj"]), (25000, 50, 100))
        self.assertEqual(wishes["Ulimits"], [{"Name": "nofile", "Hard": 200, "Soft": 100}])
        deadline = time.monotonic() + 60
        while self.client.containers.get(container.id).attrs["State"]["Health"]["Status"] != "healthy":
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.1)

    def test_an_exec_has_a_socket_that_speaks_both_ways(self):
        container = self.asleep()
        _, socket = container.exec_run("cat", stdin=True, socket=True)
        socket._sock.sendall(b"spoken\n")
        data = b""
        while len(data) < 15:
            data += socket._sock.recv(100)
        self.assertEqual(data, b"\x01\0\0\0\0\0\0\x07spoken\n")
        socket.close()

    def test_streams_of_an_exec_come_apart_piece_by_piece(self):
        container = self.asleep()
        script = "echo out; sleep 0.5; echo err >&2; sleep 0.5; echo out"
        _, pieces = container.exec_run(["sh", "-c", script], stream=True, demux=True)
        self.assertEqual(list(pieces), [(b"out\n", None), (None, b"err\n"), (b"out\n", None)])
        session = self.api.exec_create(container.id, "sh -c 'exit 6'")
        self.assertIsNone(self.api.exec_inspect(session)["ExitCode"])
        self.api.exec_start(session)
        about = self.api.exec_inspect(session)
        self.assertEqual((about["ExitCode"], about["Running"]), (6, False))
        self.assertEqual(about["ProcessConfig"]["entrypoint"], "sh")

    def test_attach_shows_what_was_said_and_what_comes(self):
        # it goes on until it is told to end, so that it cannot have ended before somebody listens
        container = self.client.containers.run("busybox", "sh -c 'echo one; while [ ! -e /end ]; do sleep 0.1; done; echo two'", detach=True)
        pieces = container.attach(stream=True, logs=True)
        container.exec_run("touch /end")
        self.assertEqual(b"".join(pieces), b"one\ntwo\n")

    def test_archives_go_in_and_come_out(self):
        container = self.asleep()
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            entry = tarfile.TarInfo("there")
            entry.size = 5
            tar.addfile(entry, io.BytesIO(b"hello"))
        self.assertTrue(container.put_archive("/tmp", packed.getvalue()))
        pieces, about = container.get_archive("/tmp/there")
        self.assertEqual((about["name"], about["size"]), ("there", 5))
        with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
            self.assertEqual(tar.extractfile("there").read(), b"hello")
        self.assertIn({"Path": "/tmp/there", "Kind": 1}, container.diff())
        with self.assertRaises(docker.errors.NotFound):
            container.get_archive("/nowhere")
        exported = io.BytesIO(b"".join(container.export()))
        with tarfile.open(fileobj=exported) as tar:
            self.assertIn("tmp/there", tar.getnames())

    def test_logs_are_chosen_by_time(self):
        container = self.client.containers.run("busybox", "sh -c 'echo early; sleep 2; echo late'", detach=True)
        container.wait()
        stamped = container.logs(timestamps=True).decode().splitlines()
        late = stamped[1].split()[0]
        second = docker.utils.datetime_to_timestamp(docker.utils.utils.datetime.strptime(late[:19], "%Y-%m-%dT%H:%M:%S"))
        self.assertEqual(container.logs(since=second), b"late\n")
        self.assertEqual(container.logs(until=second), b"early\n")
        self.assertEqual(container.logs(since=second, tail=5), b"late\n")

    def test_wait_has_conditions(self):
        container = self.client.containers.create("busybox", "sh -c 'exit 3'")
        self.assertEqual(self.api.wait(container.id, condition="not-running")["StatusCode"], 0)
        container.start()
        self.assertEqual(self.api.wait(container.id)["StatusCode"], 3)
        with self.assertRaises(Exception):
            self.asleep(name="slow").wait(timeout=1)
        with self.assertRaises(docker.errors.APIError):
            self.api.wait(container.id, condition="nonsense")

    def test_limits_are_changed_while_it_runs(self):
        container = self.asleep(mem_limit="64m", memswap_limit="64m")
        container.update(mem_limit="96m", memswap_limit="96m", cpu_shares=300, restart_policy={"Name": "on-failure", "MaximumRetryCount": 2})
        container.reload()
        wishes = container.attrs["HostConfig"]
        self.assertEqual((wishes["Memory"], wishes["CpuShares"]), (96 << 20, 300))
        self.assertEqual(wishes["RestartPolicy"], {"Name": "on-failure", "MaximumRetryCount": 2})
        self.assertEqual(container.stats(stream=False)["memory_stats"]["limit"], 96 << 20)

    def test_stats_come_every_second_with_what_to_compare(self):
        container = self.client.containers.run("busybox", "sh -c 'while :; do :; done'", detach=True)
        stream = container.stats(stream=True, decode=True)
        next(stream)
        second = next(stream)
        self.assertGreater(second["cpu_stats"]["cpu_usage"]["total_usage"], second["precpu_stats"]["cpu_usage"]["total_usage"])
        self.assertGreater(second["cpu_stats"]["system_cpu_usage"], second["precpu_stats"]["system_cpu_usage"])
        self.assertEqual(second["pids_stats"]["current"], 1)
        self.assertIn("eth0", second["networks"])

    def test_networks_are_made_joined_left_and_removed(self):
        pool = docker.types.IPAMPool(subnet="10.9.0.0/24", gateway="10.9.0.1", iprange="10.9.0.128/25", aux_addresses={"spare": "10.9.0.2"})
        network = self.client.networks.create("mine", ipam=docker.types.IPAMConfig(pool_configs=[pool]), labels={"a": "b"}, internal=True)
        self.assertEqual(network.attrs["IPAM"]["Config"][0]["Subnet"], "10.9.0.0/24")
        self.assertTrue(network.attrs["Internal"])
        container = self.asleep()
        network.connect(container, ipv4_address="10.9.0.7")
        container.reload()
        self.assertEqual(container.attrs["NetworkSettings"]["Networks"]["mine"]["IPAddress"], "10.9.0.7")
        network.reload()
        self.assertEqual([c.id for c in network.containers], [container.id])
        with self.assertRaises(docker.errors.APIError) as caught:
            network.remove()
        self.assertEqual(caught.exception.status_code, 403)
        network.disconnect(container)
        self.assertEqual(self.client.networks.list(filters={"label": "a=b"})[0].id, network.id)
        self.assertEqual(self.client.networks.list(names=["mine"])[0].id, network.id)
        self.assertEqual(self.client.networks.prune()["NetworksDeleted"], ["mine"])

    def test_prunes_take_what_their_filters_say(self):
        kept = self.client.containers.create("busybox", "true", labels={"keep": "yes"})
        gone = self.client.containers.create("busybox", "true")
        self.assertEqual(self.client.containers.prune(filters={"label!": ["keep"]})["ContainersDeleted"], [gone.id])
        self.assertEqual([c.id for c in self.client.containers.list(all=True)], [kept.id])
        self.assertIsNone(self.client.containers.prune(filters={"until": "1h"})["ContainersDeleted"])

    def test_an_image_is_made_of_a_container_and_tells_its_history(self):
        container = self.client.containers.run("busybox", ["sh", "-c", "echo x > /new"], detach=True)
        container.wait()
        image = container.commit("made", tag="1", message="why", author="me", changes=["CMD cat /new", "ENV A=b"], conf={"Labels": {"x": "y"}})
        self.assertIn("made:1", image.tags)
        self.assertEqual(image.labels, {"x": "y"})
        self.assertEqual(self.client.containers.run("made:1", remove=True), b"x\n")
        self.assertGreater(len(image.history()), 1)
        self.client.images.remove("made:1", force=True)

    def test_events_of_the_past_are_told(self):
        begin = int(time.time())
        container = self.asleep(labels={"tier": "front"})
        container.kill()
        container.wait()
        events = self.client.events(since=begin, until=int(time.time()) + 1, decode=True, filters={"label": "tier=front", "type": "container"})
        actions = [event["Action"] for event in events]
        self.assertEqual([action for action in actions if action in ("create", "start", "kill", "die")], ["create", "start", "kill", "die"])

    def test_names_are_found_by_expressions(self):
        one, two = self.asleep(name="web-1"), self.asleep(name="web-22")
        found = lambda name: {c.id for c in self.client.containers.list(filters={"name": name})}
        self.assertEqual(found("web"), {one.id, two.id})
        self.assertEqual(found("^web-[0-9]$"), {one.id})
        self.assertEqual(found("^/web-22$"), {two.id})
        self.assertEqual(self.client.containers.list(ignore_removed=True, sparse=True)[0].attrs["State"], "running")

    def test_what_is_wrong_is_told_with_its_own_status(self):
        container = self.asleep(name="box")
        for status, act in [
            (404, lambda: self.client.containers.get("nobody")),
            (409, lambda: self.asleep(name="box")),
            (409, lambda: container.remove()),
            (409, lambda: container.unpause()),
            (404, lambda: self.client.networks.get("nobody")),
            (404, lambda: self.client.volumes.get("nobody")),
            (404, lambda: self.client.images.get("nobody")),
            (400, lambda: self.api.containers(filters={"nonsense": "x"})),
        ]:
            with self.assertRaises(docker.errors.APIError) as caught:
                act()
            self.assertEqual(caught.exception.status_code, status, caught.exception)
        self.assertIn("message", json.loads(self.api._get(self.api._url("/containers/nobody/json")).text))


if __name__ == "__main__":
    unittest.main()
