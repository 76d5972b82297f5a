"""A server of files with every fault of the web."""

import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["BODY", "Handler", "Server", "packed"]


BODY = b"".join(b"line %d\n" % n for n in range(30_000))


def packed(content: bytes, how: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive with inner.txt."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        archive.writestr("inner.txt", content)
    return file.getvalue()


class Handler(BaseHTTPRequestHandler):
    """/ok serves BODY with ranges; the other paths break in the way that their name says."""

    server: "Server"  # type: ignore[assignment]  # the base class knows no attributes of ours

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range")))
        getattr(self, "serve_" + self.path.strip("/").replace(".", "_"))()

    def body(self, data: bytes, promised: int | None = None, ranges: bool = True) -> None:
        wanted, start = self.headers.get("Range"), 0
        if wanted and ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str((promised or len(data)) - start))
        self.end_headers()
        self.wfile.write(data[start:])

    def serve_ok(self) -> None:
        self.body(BODY)

    def serve_no_ranges(self) -> None:
        self.body(BODY, ranges=False)

    def serve_gone(self) -> None:
        self.send_error(404)

    def serve_busy_once(self) -> None:
        if len(self.server.asked) == 1:
            self.send_error(503)
        else:
            self.body(BODY)

    def serve_cut_once(self) -> None:
        if len(self.server.asked) == 1:
            self.body(BODY[:100_000], promised=len(BODY))
        else:
            self.body(BODY)

    def serve_cut(self) -> None:
        self.body(BODY[:100_000], promised=len(BODY), ranges=False)

    def serve_silent(self) -> None:
        self.server.released.wait(20)

    def serve_trickle(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        while not self.server.released.wait(0.05):
            try:
                self.wfile.write(b"x")
            except OSError:
                return

    def serve_to_file(self) -> None:
        self.send_response(302)
        self.send_header("Location", "file:///etc/hostname")
        self.end_headers()

    def serve_to_ftp(self) -> None:
        self.send_response(302)
        self.send_header("Location", "ftp://127.0.0.1/x")
        self.end_headers()

    def serve_moved(self) -> None:
        self.send_response(302)
        self.send_header("Location", "/ok")
        self.end_headers()

    def serve_zip(self) -> None:
        self.body(packed(BODY))

    def serve_bomb(self) -> None:
        self.body(packed(bytes(200_000_000)))

    def serve_bzip2(self) -> None:
        self.body(packed(BODY, zipfile.ZIP_BZIP2))

    def serve_damaged(self) -> None:
        data = bytearray(packed(BODY))
        data[200:400] = bytes(200)
        self.body(bytes(data))

    def serve_endless(self) -> None:
        """Without a length, or as chunks: nothing says how much there will be."""
        self.send_response(200)
        self.end_headers()
        while not self.server.released.is_set():
            try:
                self.server.sent += self.wfile.write(bytes(1 << 16))
            except OSError:
                return

    def serve_too_long(self) -> None:
        self.body(BODY, promised=10 * len(BODY))


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str | None]] = []
        self.sent = 0
        self.released = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"
