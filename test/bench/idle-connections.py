"""Opens N connections to URI (a real client: libnbd), says `connected`, and keeps them until stdin ends."""

import sys

import nbd

uri, count = sys.argv[1], int(sys.argv[2])
handles = []
for _ in range(count):
    handle = nbd.NBD()
    handle.connect_uri(uri)
    handles.append(handle)
print("connected", flush=True)
sys.stdin.read()
for handle in handles:
    handle.shutdown()
