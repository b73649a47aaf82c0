"""Volumes, images, networks, events."""

import io
import threading
import time
import unittest

import docker


class Things(unittest.TestCase):
    def setUp(self):
        self.client = docker.from_env()
        self.addCleanup(self.client.close)
        self.addCleanup(self.remove_all)

    def remove_all(self):
        for container in self.client.containers.list(all=True):
            container.remove(force=True, v=True)
        for volume in self.client.volumes.list():
            volume.remove(force=True)

    def test_volumes_are_made_found_and_removed(self):
        volume = self.client.volumes.create("data", labels={"a": "b"})
        self.assertEqual((volume.name, volume.attrs["Driver"], volume.attrs["Labels"]), ("data", "local", {"a": "b"}))
        self.assertEqual([v.name for v in self.client.volumes.list(filters={"label": "a=b"})], ["data"])
        self.client.containers.run("busybox", ["sh", "-c", "echo x > /d/a"], remove=True, volumes=["data:/d"])
        output = self.client.containers.run("busybox", "cat /d/a", remove=True, volumes={"data": {"bind": "/d", "mode": "ro"}})
        self.assertEqual(output, b"x\n")
        user = self.client.containers.create("busybox", "true", volumes=["data:/d"])
        with self.assertRaises(docker.errors.APIError) as caught:
            volume.remove()
        self.assertEqual(caught.exception.status_code, 409)
        user.remove()
        volume.remove()
        with self.assertRaises(docker.errors.NotFound):
            self.client.volumes.get("data")

    def test_mounts_are_typed(self):
        mounts = [
            docker.types.Mount("/v", "typed", type="volume", labels={"k": "v"}),
            docker.types.Mount("/t", None, type="tmpfs", tmpfs_size="1m"),
            docker.types.Mount("/b", "/tmp", type="bind", read_only=True),
        ]
        container = self.client.containers.run("busybox", "sleep 1000", detach=True, mounts=mounts)
        kinds = {mount["Destination"]: (mount["Type"], mount["RW"]) for mount in container.attrs["Mounts"]}
        self.assertEqual(kinds, {"/v": ("volume", True), "/t": ("tmpfs", True), "/b": ("bind", False)})
        self.assertEqual(self.client.volumes.get("typed").attrs["Labels"], {"k": "v"})

    def test_volumes_without_a_container_are_pruned(self):
        self.client.containers.create("busybox", "true", volumes=["/own"]).remove()
        before = len(self.client.volumes.list())
        pruned = self.client.volumes.prune()
        self.assertEqual(len(pruned["VolumesDeleted"]), before)
        self.assertIn("SpaceReclaimed", pruned)

    def test_images_are_listed_tagged_saved_loaded_and_removed(self):
        image = self.client.images.get("busybox")
        self.assertTrue(image.tag("other", "2"))
        image.reload()
        self.assertIn("other:2", image.tags)
        saved = b"".join(image.save(named="other:2"))
        self.client.images.remove("other:2")
        loaded = self.client.images.load(io.BytesIO(saved))
        self.assertEqual(loaded[0].id, image.id)
        self.assertIn("other:2", self.client.images.get("other:2").tags)
        self.client.images.remove("other:2")
        self.assertTrue(image.history())
        self.assertTrue(any(found.id == image.id for found in self.client.images.list()))
        with self.assertRaises(docker.errors.ImageNotFound):
            self.client.images.get("nobody:1")

    def test_the_networks_that_are_always_there_are_listed(self):
        names = {network.name for network in self.client.networks.list()}
        self.assertLessEqual({"bridge", "host", "none"}, names)
        self.assertEqual(self.client.networks.list(names=["bridge"])[0].attrs["Driver"], "bridge")

    def test_events_are_heard_while_they_happen(self):
        heard = []
        events = self.client.events(decode=True, filters={"type": "container"})

        def listen():
            for event in events:
                heard.append(event["Action"])
                if event["Action"] == "destroy":
                    break

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        # nothing says when the daemon has begun to tell; what happened before would be missed
        time.sleep(1)
        self.client.containers.run("busybox", "true", remove=True)
        listener.join(60)
        events.close()
        wanted = ["create", "start", "die", "destroy"]
        self.assertEqual([action for action in heard if action in wanted], wanted)

    def test_disk_usage_names_all_kinds(self):
        self.client.volumes.create("data")
        usage = self.client.df()
        self.assertTrue(usage["Images"] and usage["LayersSize"] > 0)
        self.assertEqual([volume["Name"] for volume in usage["Volumes"]], ["data"])
        self.assertEqual(usage["Volumes"][0]["UsageData"]["RefCount"], 0)


if __name__ == "__main__":
    unittest.main()
