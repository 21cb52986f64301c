"""Connects /dev/nbdN over the kernel's netlink interface, and gives it a new connection for each that dies.

    nbd-reconnect.py HOST PORT EXPORT N CONNECTIONS TIMEOUT-SECONDS

nbd-client of Debian 12 can't do this: over netlink it forgets `-persist`, and over ioctl the kernel tells it of a
lost server in a way that it takes for the end. The kernel can: a request that gets no answer within the
timeout is sent again on another connection, and waits when there is none until one has been handed over.

Prints `connected`, then a line for every connection that died: `reconnected`, or why the kernel did not take the
new one. Runs until it is killed; the device is disconnected with nbd-client -d.
"""

import errno
import socket
import struct
import sys
import time

DEAD_CONNECTION_SECONDS = 120  # how long the kernel lets requests wait for a new connection

# linux/netlink.h, linux/genetlink.h
NETLINK_GENERIC, NLMSG_ERROR, NLM_F_REQUEST, NLM_F_ACK, NLA_F_NESTED = 16, 2, 1, 4, 0x8000
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP = 270, 1
GENL_ID_CTRL, CTRL_CMD_GETFAMILY = 16, 3
CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME, CTRL_ATTR_MCAST_GROUPS, CTRL_ATTR_MCAST_GRP_ID = 1, 2, 7, 2
# linux/nbd-netlink.h
CONNECT, RECONFIGURE, LINK_DEAD = 1, 3, 4
INDEX, SIZE_BYTES, BLOCK_SIZE, TIMEOUT, SERVER_FLAGS, SOCKETS, DEAD_CONN_TIMEOUT = 1, 2, 3, 4, 5, 7, 8
SOCK_ITEM, SOCK_FD = 1, 1


def attribute(kind, payload):
    return struct.pack("=HH", 4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def u32(kind, value):
    return attribute(kind, struct.pack("=I", value))


def u64(kind, value):
    return attribute(kind, struct.pack("=Q", value))


def attributes(data):
    found = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        found[kind & 0x3FFF] = data[4:length]
        data = data[(length + 3) & ~3 :]
    return found


class Netlink:
    def __init__(self):
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC)
        self.socket.bind((0, 0))

    def request(self, family, command, payload):
        """Sends one message; returns the attributes of its answer, and -errno (0: well) of its acknowledgement."""
        body = struct.pack("=BBH", command, 1, 0) + payload
        header = struct.pack("=IHHII", 16 + len(body), family, NLM_F_REQUEST | NLM_F_ACK, 1, 0)
        self.socket.send(header + body)
        answer = {}
        while True:
            for kind, message in self.receive():
                if kind == NLMSG_ERROR:
                    return answer, struct.unpack_from("=i", message)[0]
                answer = attributes(message[4:])

    def receive(self):
        data = self.socket.recv(65536)
        while len(data) >= 16:
            length, kind = struct.unpack_from("=IH", data)
            yield kind, data[16:length]
            data = data[(length + 3) & ~3 :]


def exactly(connection, length):
    data = b""
    while len(data) < length:
        piece = connection.recv(length - len(data))
        if not piece:
            raise ConnectionError("the server closed the connection during the handshake")
        data += piece
    return data


def negotiate(host, port, export):
    """A connection in transmission phase, the export's size and its transmission flags."""
    connection = socket.create_connection((host, port), timeout=10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    magic, option_magic, _ = struct.unpack(">QQH", exactly(connection, 18))
    assert (magic, option_magic) == (0x4E42444D41474943, 0x49484156454F5054), "not an NBD server"
    name = export.encode()
    go = struct.pack(">I", len(name)) + name + struct.pack(">H", 0)
    connection.sendall(struct.pack(">IQII", 3, 0x49484156454F5054, 7, len(go)) + go)
    size = flags = None
    while True:
        _, _, kind, length = struct.unpack(">QIII", exactly(connection, 20))
        payload = exactly(connection, length)
        if kind == 1:
            connection.settimeout(None)
            return connection, size, flags
        assert kind == 3, f"the server refused the export: {kind:#x} {payload!r}"
        if payload[:2] == b"\0\0":
            size, flags = struct.unpack_from(">QH", payload, 2)


def negotiate_again(host, port, export):
    while True:
        try:
            return negotiate(host, port, export)[0]
        except OSError:
            time.sleep(0.2)


def sockets(connections):
    items = b"".join(
        attribute(SOCK_ITEM | NLA_F_NESTED, u32(SOCK_FD, connection.fileno())) for connection in connections
    )
    return attribute(SOCKETS | NLA_F_NESTED, items)


def main(host, port, export, index, count, timeout):
    netlink = Netlink()
    family_name = attribute(CTRL_ATTR_FAMILY_NAME, b"nbd\0")
    family, _ = netlink.request(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, family_name)
    nbd = struct.unpack("=H", family[CTRL_ATTR_FAMILY_ID])[0]
    group = attributes(attributes(family[CTRL_ATTR_MCAST_GROUPS])[1])[CTRL_ATTR_MCAST_GRP_ID]
    events = Netlink()
    events.socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, struct.unpack("=I", group)[0])

    made = [negotiate(host, port, export) for _ in range(count)]
    _, size, flags = made[0]
    connections = [connection for connection, _, _ in made]
    settings = u64(SIZE_BYTES, size) + u64(BLOCK_SIZE, 512) + u64(SERVER_FLAGS, flags)
    limits = u64(TIMEOUT, timeout) + u64(DEAD_CONN_TIMEOUT, DEAD_CONNECTION_SECONDS)
    _, status = netlink.request(nbd, CONNECT, u32(INDEX, index) + settings + limits + sockets(connections))
    if status != 0:
        raise OSError(-status, "the kernel did not take the connections")
    # The kernel has its own references; ours would keep a dead connection half open.
    for connection in connections:
        connection.close()
    print("connected", flush=True)

    while True:
        for kind, message in events.receive():
            if kind != nbd or message[0] != LINK_DEAD:
                continue
            if struct.unpack("=I", attributes(message[4:])[INDEX])[0] != index:
                continue
            connection = negotiate_again(host, port, export)
            _, status = netlink.request(nbd, RECONFIGURE, u32(INDEX, index) + sockets([connection]))
            connection.close()
            print("reconnected" if status == 0 else f"not taken: {errno.errorcode[-status]}", flush=True)


host, port, export, index, count, timeout = sys.argv[1:]
main(host, int(port), export, int(index), int(count), int(timeout))
