# Negotiation, option by option. Environment: URI (without a name), NAMES (comma-separated, the default first),
# SIZES (in the same order).
import os

import nbd

uri = os.environ["URI"]
names = os.environ["NAMES"].split(",")
sizes = [int(size) for size in os.environ["SIZES"].split(",")]


def handle():
    h = nbd.NBD()
    h.set_opt_mode(True)
    h.set_full_info(True)
    h.connect_uri(uri)
    assert h.aio_is_negotiating()
    return h


h = handle()
listed = []
assert h.opt_list(lambda name, description: listed.append(name)) == len(listed)
assert listed == names, listed

# INFO for each export on one connection, then for one that is not there, then GO
for name, size in zip(names + [""], sizes + [sizes[0]]):
    h.set_export_name(name)
    h.opt_info()
    assert h.get_size() == size
    assert h.get_canonical_export_name() == (name or names[0]), h.get_canonical_export_name()
    assert not h.is_read_only()

contexts = []
h.opt_list_meta_context(contexts.append)
assert contexts == ["base:allocation"], contexts
for query, expected in (("base:", ["base:allocation"]), ("base:allocation", ["base:allocation"]),
                        ("base:no-such", []), ("x-other:", [])):
    contexts = []
    h.clear_meta_contexts()
    h.add_meta_context(query)
    h.opt_list_meta_context(contexts.append)
    assert contexts == expected, (query, contexts)
h.clear_meta_contexts()

h.set_export_name("no such export")
for call in (h.opt_info, h.opt_go):
    try:
        call()
        raise AssertionError("an unknown export was found")
    except nbd.Error:
        assert h.aio_is_negotiating()

h.set_export_name(names[-1])
h.add_meta_context("base:allocation")
h.opt_go()
assert h.aio_is_ready() and h.get_size() == sizes[-1]
assert h.can_meta_context("base:allocation")
assert h.pread(512, 0) is not None
h.shutdown()

h = handle()
h.opt_abort()
assert h.aio_is_closed()
