"""Files: archives in and out, exports, changes, images of containers."""

import io
import tarfile
import unittest

import docker


def tar_of(files):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.uid, info.gid, info.mode = 1234, 1235, 0o640
            tar.addfile(info, io.BytesIO(content))
    return data.getvalue()


def opened(chunks):
    return tarfile.open(fileobj=io.BytesIO(b"".join(chunks)))


class Files(unittest.TestCase):
    def setUp(self):
        self.client = docker.from_env()
        self.addCleanup(self.client.close)
        self.addCleanup(self.remove_all)

    def remove_all(self):
        for container in self.client.containers.list(all=True):
            container.remove(force=True, v=True)

    def test_what_is_put_is_got_again_running_or_not(self):
        running = self.client.containers.run("busybox", "sleep 1000", detach=True, volumes={"data": {"bind": "/vol"}})
        created = self.client.containers.create("busybox", "true", volumes={"data2": {"bind": "/vol"}})
        for container in (running, created):
            for place in ("/tmp", "/vol"):
                self.assertTrue(container.put_archive(place, tar_of({"a/b": b"content"})))
                chunks, stat = container.get_archive(place + "/a/b")
                self.assertEqual((stat["name"], stat["size"], stat["mode"] & 0o777), ("b", 7, 0o640))
                with opened(chunks) as tar:
                    entry = tar.getmember("b")
                    self.assertEqual((entry.uid, entry.gid), (1234, 1235))
                    self.assertEqual(tar.extractfile(entry).read(), b"content")
        self.assertEqual(running.exec_run("cat /vol/a/b").output, b"content")

    def test_a_large_file_comes_whole_in_pieces(self):
        container = self.client.containers.create("busybox", "true")
        content = bytes(range(256)) * 40000
        container.put_archive("/", tar_of({"large": content}))
        chunks, stat = container.get_archive("/large", chunk_size=65536)
        self.assertEqual(stat["size"], len(content))
        with opened(chunks) as tar:
            self.assertEqual(tar.extractfile("large").read(), content)

    def test_a_path_that_is_not_there_is_not_found(self):
        container = self.client.containers.create("busybox", "true")
        with self.assertRaises(docker.errors.NotFound):
            container.get_archive("/no/such")
        with self.assertRaises(docker.errors.NotFound):
            container.put_archive("/no/such", tar_of({"a": b""}))

    def test_links_are_told(self):
        container = self.client.containers.run("busybox", ["sh", "-c", "ln -s ../etc/passwd /tmp/l"], detach=True)
        container.wait()
        chunks, stat = container.get_archive("/tmp/l")
        self.assertEqual(stat["linkTarget"], "/etc/passwd")
        with opened(chunks) as tar:
            self.assertEqual(tar.getmember("l").linkname, "../etc/passwd")

    def test_changes_and_exports(self):
        container = self.client.containers.run("busybox", ["sh", "-c", "echo x > /new; rm /etc/group"], detach=True)
        container.wait()
        changes = {(change["Kind"], change["Path"]) for change in container.diff()}
        self.assertEqual(changes, {(1, "/new"), (0, "/etc"), (2, "/etc/group")})
        with opened(container.export()) as tar:
            self.assertEqual(tar.extractfile("new").read(), b"x\n")
        self.assertIsNone(self.client.containers.create("busybox", "true").diff())

    def test_a_commit_is_an_image(self):
        container = self.client.containers.run("busybox", ["sh", "-c", "echo x > /new"], detach=True)
        container.wait()
        image = container.commit(
            repository="made", tag="1", author="me", message="a word", changes="CMD cat /new", conf={"Env": ["A=b"]}
        )
        self.assertEqual(image.tags, ["made:1"])
        self.assertEqual(self.client.containers.run("made:1", remove=True), b"x\n")
        self.assertIn("A=b", image.attrs["Config"]["Env"])
        container.remove()
        self.client.images.remove("made:1")


if __name__ == "__main__":
    unittest.main()
