"""Streams: logs, exec, attach."""

import unittest

import docker


class Streams(unittest.TestCase):
    def setUp(self):
        self.client = docker.from_env()
        self.addCleanup(self.client.close)
        self.addCleanup(self.remove_all)

    def remove_all(self):
        for container in self.client.containers.list(all=True):
            container.remove(force=True, v=True)

    def test_logs_are_read_by_stream_and_by_tail(self):
        # Two pipes have no order; the last line is to be one of stdout.
        script = "echo err >&2; sleep 1; for i in 1 2 3; do echo out $i; done"
        container = self.client.containers.run("busybox", ["sh", "-c", script], detach=True)
        container.wait()
        self.assertEqual(container.logs(stderr=False), b"out 1\nout 2\nout 3\n")
        self.assertEqual(container.logs(stdout=False), b"err\n")
        self.assertEqual(container.logs(stderr=False, tail=1), b"out 3\n")
        self.assertRegex(container.logs(stderr=False, tail=1, timestamps=True), rb"^\d{4}-\d\d-\d\dT.*Z out 3\n$")

    def test_logs_are_followed_to_the_end(self):
        script = "for i in 1 2 3; do echo $i; sleep 0.2; done"
        container = self.client.containers.run("busybox", ["sh", "-c", script], detach=True)
        self.assertEqual(b"".join(container.logs(stream=True, follow=True)), b"1\n2\n3\n")

    def test_exec_gives_code_and_streams_apart(self):
        container = self.client.containers.run("busybox", "sleep 1000", detach=True)
        # docker-py loses what comes in one packet with the answer's head: it reads that by a buffer, the rest past it
        code, output = container.exec_run(["sh", "-c", "sleep 0.5; echo out; echo err >&2; exit 4"], demux=True)
        self.assertEqual((code, output), (4, (b"out\n", b"err\n")))
        code, output = container.exec_run("id -u", user="1000")
        self.assertEqual((code, output), (0, b"1000\n"))
        _, stream = container.exec_run("seq 1 3", stream=True)
        self.assertEqual(b"".join(stream), b"1\n2\n3\n")
        code, output = container.exec_run("pwd", workdir="/tmp", environment=["A=b"])
        self.assertEqual(output, b"/tmp\n")

    def test_a_socket_speaks_both_ways(self):
        container = self.client.containers.create("busybox", "cat", stdin_open=True)
        socket = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
        container.start()
        socket._sock.sendall(b"spoken\n")
        header = self.read(socket, 8)
        self.assertEqual(header[0], 1)
        self.assertEqual(self.read(socket, int.from_bytes(header[4:], "big")), b"spoken\n")
        socket.close()

    def read(self, socket, count):
        data = b""
        while len(data) < count:
            data += socket._sock.recv(count - len(data))
        return data

    def test_a_terminal_has_one_stream_and_a_size(self):
        container = self.client.containers.run("busybox", "sh -c 'sleep 1; stty size; sleep 1000'", detach=True, tty=True)
        container.resize(33, 77)
        seen = b""
        for piece in container.logs(stream=True, follow=True):
            seen += piece
            if b"\n" in seen:
                break
        self.assertEqual(seen, b"33 77\r\n")


if __name__ == "__main__":
    unittest.main()
