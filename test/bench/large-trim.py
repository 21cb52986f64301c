"""Writes a MiB near both ends of URI's first 4 GiB, then trims 2^32 - 4096 bytes in one request.

Prints the seconds that the request took."""

import sys
import time

import nbd

LENGTH = 2**32 - 4096
MIB = 2**20

handle = nbd.NBD()
handle.connect_uri(sys.argv[1])
for offset in (0, LENGTH - MIB):
    handle.pwrite(b"\xa5" * MIB, offset)
handle.flush()
before = time.monotonic()
handle.trim(LENGTH, 0)
print(time.monotonic() - before)
handle.shutdown()
