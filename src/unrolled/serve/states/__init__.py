"""States of texts as clients hold them: signed blobs, and handles for states that stay with the server."""
