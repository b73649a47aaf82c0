"""Containers: run, waited for, looked at, stopped."""

import unittest

import docker


class Containers(unittest.TestCase):
    def setUp(self):
        self.client = docker.from_env()
        self.addCleanup(self.client.close)
        self.addCleanup(self.remove_all)

    def remove_all(self):
        for container in self.client.containers.list(all=True):
            container.remove(force=True, v=True)

    def test_the_daemon_answers(self):
        self.assertTrue(self.client.ping())
        self.assertIn("ApiVersion", self.client.version())
        self.assertIn("Containers", self.client.info())

    def test_run_gives_back_the_output(self):
        self.assertEqual(self.client.containers.run("busybox", "echo hello", remove=True), b"hello\n")

    def test_run_raises_with_the_exit_code_and_what_was_said_on_stderr(self):
        with self.assertRaises(docker.errors.ContainerError) as caught:
            self.client.containers.run("busybox", ["sh", "-c", "echo oops >&2; exit 3"], stderr=True)
        self.assertEqual(caught.exception.exit_status, 3)
        self.assertIn(b"oops", caught.exception.stderr)

    def test_an_image_that_is_not_there_is_its_own_error(self):
        with self.assertRaises((docker.errors.ImageNotFound, docker.errors.APIError)):
            self.client.containers.create("no-such-image-at-all", "true")

    def test_wait_tells_the_code(self):
        container = self.client.containers.run("busybox", "sh -c 'exit 5'", detach=True)
        self.assertEqual(container.wait()["StatusCode"], 5)
        container.reload()
        self.assertEqual(container.status, "exited")
        self.assertEqual(container.attrs["State"]["ExitCode"], 5)

    def test_wishes_are_seen_inside_and_in_inspect(self):
        container = self.client.containers.run(
            "busybox",
            "sleep 1000",
            detach=True,
            name="wishes",
            environment={"COLOUR": "blue"},
            labels={"tier": "front"},
            working_dir="/tmp",
            user="1000",
            hostname="box",
            mem_limit="64m",
            tmpfs={"/scratch": "size=1m"},
            volumes={"data": {"bind": "/data", "mode": "rw"}},
            extra_hosts={"other": "10.1.2.3"},
        )
        code, output = container.exec_run(["sh", "-c", "echo $COLOUR; pwd; id -u; hostname; grep other /etc/hosts"])
        self.assertEqual((code, output.split()), (0, b"blue /tmp 1000 box 10.1.2.3 other".split()))
        attrs = container.attrs
        self.assertEqual(attrs["Config"]["Labels"], {"tier": "front"})
        self.assertEqual(attrs["HostConfig"]["Memory"], 64 << 20)
        self.assertEqual([mount["Name"] for mount in attrs["Mounts"] if mount["Type"] == "volume"], ["data"])
        self.assertEqual(self.client.containers.get("wishes").id, container.id)
        self.assertEqual(container.labels, {"tier": "front"})

    def test_lists_are_filtered(self):
        one = self.client.containers.run("busybox", "sleep 1000", detach=True, labels=["a"])
        two = self.client.containers.create("busybox", "true", labels={"b": "c"})
        self.assertEqual([c.id for c in self.client.containers.list()], [one.id])
        self.assertEqual([c.id for c in self.client.containers.list(all=True, filters={"label": "b=c"})], [two.id])
        self.assertEqual([c.id for c in self.client.containers.list(all=True, filters={"status": "running"})], [one.id])

    def test_a_container_is_led_through_its_life(self):
        container = self.client.containers.run("busybox", "sleep 1000", detach=True)
        container.pause()
        container.reload()
        self.assertEqual(container.status, "paused")
        container.unpause()
        container.rename("other")
        container.restart(timeout=0)
        container.reload()
        self.assertEqual((container.status, container.name), ("running", "other"))
        container.kill()
        container.wait()
        container.start()
        container.stop(timeout=0)
        container.reload()
        self.assertEqual(container.status, "exited")
        container.remove()
        with self.assertRaises(docker.errors.NotFound):
            self.client.containers.get("other")

    def test_processes_are_listed(self):
        container = self.client.containers.run("busybox", "sleep 1000", detach=True)
        top = container.top()
        self.assertIn("PID", top["Titles"])
        self.assertTrue(any("sleep 1000" in " ".join(process) for process in top["Processes"]))

    def test_published_ports_are_told(self):
        container = self.client.containers.run("busybox", "sleep 1000", detach=True, ports={"80/tcp": ("127.0.0.1", None)})
        container.reload()
        bindings = container.ports["80/tcp"]
        self.assertEqual(bindings[0]["HostIp"], "127.0.0.1")
        self.assertGreater(int(bindings[0]["HostPort"]), 0)

    def test_what_does_not_run_is_pruned(self):
        container = self.client.containers.create("busybox", "true")
        pruned = self.client.containers.prune()
        self.assertEqual(pruned["ContainersDeleted"], [container.id])

    def test_one_of_the_same_name_is_a_conflict(self):
        self.client.containers.create("busybox", "true", name="taken")
        with self.assertRaises(docker.errors.APIError) as caught:
            self.client.containers.create("busybox", "true", name="taken")
        self.assertEqual(caught.exception.status_code, 409)

    def test_a_container_says_what_it_uses(self):
        container = self.client.containers.run("busybox", "sleep 1000", detach=True)
        stats = container.stats(stream=False)
        self.assertGreater(stats["memory_stats"]["usage"], 0)
        self.assertIn("cpu_stats", stats)
        first = next(container.stats(stream=True, decode=True))
        self.assertIn("read", first)


if __name__ == "__main__":
    unittest.main()
