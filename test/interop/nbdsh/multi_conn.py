# CAN_MULTI_CONN: what one connection has written, and another has flushed, a third reads. Environment: URI.
import os

import nbd

uri = os.environ["URI"]
connections = []
for _ in range(4):
    h = nbd.NBD()
    h.connect_uri(uri)
    assert h.can_multi_conn()
    connections.append(h)

for number in range(400):
    writer, flusher, reader = (connections[(number + k) % 4] for k in (0, 1, 2))
    offset, length = number * 5000, 4096 if number % 10 else 1 << 20
    data = (b"%08d" % number) * (length // 8)
    kind = number % 4
    if kind == 3:
        writer.pwrite(data, offset, nbd.CMD_FLAG_FUA)
    else:
        writer.pwrite(data, offset)
    if kind == 1:
        writer.zero(length, offset)
        data = bytes(length)
    elif kind == 2:
        writer.trim(length, offset)
        data = bytes(length)
    flusher.flush()
    assert reader.pread(length, offset) == data, (number, kind)
for h in connections:
    h.shutdown()
