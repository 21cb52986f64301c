# Every command and flag that libnbd knows, with and without structured replies.
# Environment: URI, FILE (the file behind the export), SIZE, STRUCTURED (0 or 1).
import errno
import os

import nbd

uri, path, size = os.environ["URI"], os.environ["FILE"], int(os.environ["SIZE"])
structured = os.environ["STRUCTURED"] == "1"
K, M = 1024, 1024 * 1024

h = nbd.NBD()
h.set_request_structured_replies(structured)
if structured:
    h.add_meta_context("base:allocation")
h.connect_uri(uri)

# what the export can do
assert h.get_size() == size
assert h.get_protocol() == "newstyle-fixed"
assert h.get_structured_replies_negotiated() == structured
assert h.can_meta_context("base:allocation") == structured
for can in ("flush", "fua", "trim", "zero", "fast_zero", "cache", "multi_conn"):
    assert getattr(h, "can_" + can)(), can
assert h.can_df() == structured
assert not h.is_read_only()
assert not h.is_rotational()
assert h.get_block_size(nbd.SIZE_MINIMUM) == 1
preferred = h.get_block_size(nbd.SIZE_PREFERRED)
assert preferred >= 512 and preferred & (preferred - 1) == 0, preferred
assert h.get_block_size(nbd.SIZE_MAXIMUM) >= 32 * M


def on_disk(offset, length):
    with open(path, "rb") as f:
        f.seek(offset)
        return f.read(length)


# write and read: aligned, odd, first and last byte, with FUA, larger than any buffer of the server
for offset, length in ((0, 1), (size - 1, 1), (4096, 4096), (12345, 6789), (3 * M + 7, 5 * M + 11), (16 * M, 32 * M)):
    for flags in (0, nbd.CMD_FLAG_FUA):
        data = os.urandom(length)
        h.pwrite(data, offset, flags)
        assert h.pread(length, offset) == data, (offset, length, flags)
        assert on_disk(offset, length) == data, (offset, length, flags)
h.flush()

# structured reads: chunks cover the range once, whatever their number
if structured:
    for flags in (0, nbd.CMD_FLAG_DF):
        buf = bytearray(b"?" * (8 * M))
        seen = []

        def chunk(piece, offset, status, err):
            assert err.value == 0
            seen.append((offset, len(piece), status))

        buf = h.pread_structured(8 * M, 12 * M, chunk, flags)
        assert buf == on_disk(12 * M, 8 * M)
        seen.sort()
        at = 12 * M
        for offset, length, status in seen:
            assert offset == at and status in (nbd.READ_DATA, nbd.READ_HOLE), seen
            at += length
        assert at == 20 * M
        if flags == nbd.CMD_FLAG_DF:
            assert len(seen) == 1, seen

# zeroes with every flag, over data
for flags in (0, nbd.CMD_FLAG_FUA, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FAST_ZERO,
              nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FAST_ZERO):
    h.pwrite(b"\xaa" * (64 * K), 4 * M)
    try:
        h.zero(64 * K - 1000, 4 * M + 500, flags)
    except nbd.Error as e:
        # a fast zero may be refused, and then must not have changed anything
        assert flags & nbd.CMD_FLAG_FAST_ZERO and e.errnum == errno.EOPNOTSUPP, (flags, e)
        assert h.pread(64 * K, 4 * M) == b"\xaa" * (64 * K)
        continue
    assert h.pread(64 * K, 4 * M) == b"\xaa" * 500 + bytes(64 * K - 1000) + b"\xaa" * 500, flags

# trim really frees blocks
h.pwrite(b"\xbb" * (8 * M), 24 * M)
h.flush()
before = os.stat(path).st_blocks
h.trim(8 * M, 24 * M, nbd.CMD_FLAG_FUA)
assert before - os.stat(path).st_blocks >= 8 * M // 512 - 64, (before, os.stat(path).st_blocks)
h.trim(10 * K, 100 * K + 1)

# cache
h.cache(M, 0)

# block status tells of the hole that trim made
if structured:
    for flags in (0, nbd.CMD_FLAG_REQ_ONE):
        extents = []

        def status(context, offset, entries, err):
            assert context == "base:allocation" and offset == 23 * M
            extents.extend(zip(entries[0::2], entries[1::2]))

        h.block_status(9 * M, 23 * M, status, flags)
        assert extents[0] == (M, 0), extents
        if flags:
            assert len(extents) == 1
        else:
            assert extents[1][0] >= 8 * M and extents[1][1] == 3, extents

# wrong requests reach the server only when libnbd does not check first
h.set_strict_mode(0)


def fails_with(expected, call, *args):
    try:
        call(*args)
    except nbd.Error as e:
        assert e.errnum in expected, (call, args, e)
        return
    raise AssertionError("no error: %r %r" % (call, args))


fails_with((errno.EINVAL,), h.pread, 1, size)
fails_with((errno.EINVAL,), h.pread, 2, size - 1)
fails_with((errno.ENOSPC,), h.pwrite, b"x", size)
fails_with((errno.ENOSPC,), h.pwrite, b"xy", size - 1)
fails_with((errno.ENOSPC,), h.zero, 2, size - 1)
fails_with((errno.EINVAL,), h.trim, 2, size - 1)
fails_with((errno.EINVAL,), h.cache, 2, size - 1)
fails_with((errno.EINVAL,), h.pread, 1, 0, nbd.CMD_FLAG_NO_HOLE)
if structured:
    fails_with((errno.EINVAL,), h.block_status, 2, size - 1, lambda *args: 0)
    fails_with((errno.EINVAL,), h.pread_structured, 2, size - 1, lambda *args: 0)
else:
    fails_with((errno.EINVAL,), h.pread, 1, 0, nbd.CMD_FLAG_DF)
assert h.pread(1, size - 1) == on_disk(size - 1, 1)  # and the connection is still in step
h.shutdown()
