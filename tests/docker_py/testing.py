"""Containers for other programs' tests, as testcontainers makes, waits for and removes them; its reaper is a stand-in that listens where that would."""

import os
import re
import tempfile
import unittest
import urllib.request

os.environ["RYUK_CONTAINER_IMAGE"] = "reaper"

import docker
from testcontainers.core.container import DockerContainer, Reaper
from testcontainers.core.network import Network
from testcontainers.core.waiting_utils import wait_for_logs


class Testing(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        client = docker.from_env()
        made = client.containers.create("busybox", "true")
        script = "echo the reaper has Started!; ls -l /var/run/docker.sock; nc -ll -p 8080 -e cat"
        made.commit("reaper", changes=f'CMD ["sh", "-c", "{script}"]')
        made.remove()

    def test_a_container_is_made_waited_for_reached_and_removed(self):
        script = "mkdir /www; echo hello > /www/page; echo ready to serve; httpd -f -p 80 -h /www"
        box = DockerContainer("busybox").with_command(["sh", "-c", script]).with_exposed_ports(80).with_env("COLOUR", "blue")
        with box:
            wait_for_logs(box, "ready to serve", timeout=60)
            url = f"http://{box.get_container_host_ip()}:{box.get_exposed_port(80)}/page"
            # the words come before the server listens
            for attempt in range(600):
                try:
                    answer = urllib.request.urlopen(url, timeout=5).read()
                    break
                except OSError:
                    import time

                    time.sleep(0.05)
            self.assertEqual(answer, b"hello\n")
            self.assertEqual(box.exec(["sh", "-c", "echo $COLOUR; exit 3"]), (3, b"blue\n"))
            self.assertIn(b"ready to serve", box.get_logs()[0])
            labels = box.get_wrapped_container().labels
            self.assertEqual(labels["org.testcontainers"], "true")
            id = box.get_wrapped_container().id
            # the reaper has the daemon's socket and holds the line
            reaper = Reaper._container.get_wrapped_container()
            self.assertIn(b"/var/run/docker.sock", reaper.logs())
            self.assertTrue(reaper.logs().decode().splitlines()[1].startswith("s"), "a socket")
            self.assertEqual(Reaper._socket.recv(6), b"label=")
        with self.assertRaises(docker.errors.NotFound):
            docker.from_env().containers.get(id)

    def test_containers_of_a_network_call_each_other_and_files_go_in_and_out(self):
        with Network() as network:
            server = DockerContainer("busybox").with_command("nc -ll -p 5000 -e echo well").with_network(network)
            server.with_network_aliases("server")
            with server:
                with tempfile.TemporaryDirectory() as place:
                    path = os.path.join(place, "note")
                    with open(path, "w") as note:
                        note.write("from the host\n")
                    client = DockerContainer("busybox").with_network(network).with_volume_mapping(place, "/in", "ro")
                    script = "until nc server 5000 < /dev/null; do sleep 0.1; done; cat /in/note"
                    with client.with_command(["sh", "-c", script]):
                        self.assertEqual(client.wait(), 0)
                        self.assertTrue(re.search(b"well\\nfrom the host\\n$", client.get_logs()[0]), client.get_logs())


if __name__ == "__main__":
    unittest.main()
