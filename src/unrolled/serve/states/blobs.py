"""States as texts that clients keep: base64url of a signature and a safetensors file."""

import base64
import binascii
import time

from unrolled.core.errors import UsageError
from unrolled.predict import KeptState, StateForm
from unrolled.predict.kept import MOST_HEADER
from unrolled.predict.state_files import MAC
from unrolled.serve.states.keys import StateKeys

__all__ = ["Blobs", "ForgedError"]


class ForgedError(UsageError):
    """The signature is not ours; nothing is said of why."""

    def __init__(self) -> None:
        super().__init__("this state is not from this server, or was changed.")


class Blobs:
    """Signs and reads blobs.

    Args:
        keys: that sign; None: signatures are neither made nor looked at, for a laboratory.
        most: bytes of the largest state. max_age: seconds after which a state is refused; None: never.
    """

    def __init__(self, keys: StateKeys | None, most: int, max_age: float | None = None):
        self.keys, self.most, self.max_age = keys, most, max_age

    def allowed(self, kept: KeptState) -> bool:
        """Whether a state is small enough to be given out."""
        return kept.size() <= self.most

    def check(self, kept: KeptState) -> None:
        """Raises UsageError for a state that is too large to be given out."""
        if not self.allowed(kept):
            raise UsageError(
                f"a state of this model takes {kept.size():,} bytes, more than this server gives out; ask for a handle "
                "(state_format = handle)."
            )

    def signed(self, kept: KeptState, form: StateForm) -> bytes:
        """The signature and the file."""
        data = form.pack(kept, "" if self.keys is None else self.keys.sign_of_first)
        return (bytes(MAC) if self.keys is None else self.keys.sign(data)) + data

    def encode(self, kept: KeptState, form: StateForm) -> str:
        """The blob of a state. Raises UsageError for a state that is too large for one."""
        self.check(kept)
        return base64.urlsafe_b64encode(self.signed(kept, form)).rstrip(b"=").decode()

    def decode(self, text: str, form: StateForm) -> KeptState:
        """The state of a blob.

        Raises:
            ForgedError: not ours. OtherModelError: that of another model. UsageError: too long, too old, damaged.
        """
        if len(text) > (self._longest() + 2) // 3 * 4:
            raise UsageError("the state is longer than any that this server gives out.")
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise ForgedError from error
        return self.read(data, form)

    def read(self, data: bytes, form: StateForm) -> KeptState:
        """The state in signature and file; see :meth:`decode`."""
        if len(data) > self._longest():
            raise UsageError("the state is longer than any that this server gives out.")
        mac, file = data[:MAC], data[MAC:]
        if self.keys is not None and not self.keys.verify(mac, file):
            raise ForgedError
        kept = form.unpack(file)
        if self.max_age is not None and time.time() - kept.issued > self.max_age:
            raise UsageError("the state is older than this server takes; send the text again.")
        return kept

    def _longest(self) -> int:
        return MAC + 8 + MOST_HEADER + self.most
