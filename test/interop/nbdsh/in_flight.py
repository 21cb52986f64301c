# Thousands of requests in flight at a time on one connection, answered in any order. Environment: URI, SIZE.
import os
import random

import nbd

size = int(os.environ["SIZE"])
block, deep = 4096, 512
h = nbd.NBD()
h.connect_uri(os.environ["URI"])
random.seed(7)
order = list(range(size // block))
random.shuffle(order)
failed = []


def stamp(number):
    return number.to_bytes(8, "big") * (block // 8)


def finished(err):
    if err.value:
        failed.append(err.value)
    return 1


def drain(below):
    while h.aio_in_flight() > below:
        h.poll(-1)


for number in order:
    drain(deep - 1)
    h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(stamp(number))), number * block, completion=finished)
    if number % 97 == 0:
        h.aio_flush(completion=finished)
drain(0)
assert not failed, failed

random.shuffle(order)
buffers = []
for number in order:
    drain(deep - 1)
    buffer = nbd.Buffer(block)
    buffers.append((number, buffer))
    h.aio_pread(buffer, number * block, completion=finished)
drain(0)
assert not failed, failed
for number, buffer in buffers:
    assert buffer.to_bytearray() == stamp(number), number

# large and small ones together, so that small replies overtake or wait, but never mix
large = [nbd.Buffer(8 << 20) for _ in range(4)]
small = [nbd.Buffer(block) for _ in range(256)]
for index, buffer in enumerate(large):
    h.aio_pread(buffer, index * (2 << 20), completion=finished)
for index, buffer in enumerate(small):
    h.aio_pread(buffer, index * block, completion=finished)
drain(0)
assert not failed, failed
for index, buffer in enumerate(large):
    got = buffer.to_bytearray()
    first = index * (2 << 20) // block
    assert got[:block] == stamp(first) and got[-block:] == stamp(first + (8 << 20) // block - 1)
for index, buffer in enumerate(small):
    assert buffer.to_bytearray() == stamp(index)
h.shutdown()
