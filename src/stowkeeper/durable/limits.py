"""The bounds of the durable room, each with its reason.

Sizes are bytes, counts are plain numbers. Timings named here were measured on ext4 on a two-core machine.
"""

SLOT_POOL_SIZE = 4096
"""Free slots a process keeps, so that a burst neither waits for a file to be created nor shares the disk with the
filler: beside a filler at work the sync of an 8 kB instance took 1019 µs on average, without one 268 µs. Empty files
cost one inode each and no block; making all of them takes 0.1 to 0.2 s."""

SLOT_REFILL_BELOW = 1024
"""Free slots under which the filler tops up: a quarter of the pool, so that most bursts end before it begins."""

SLOT_BATCH = 64
"""Slots covered by one folder sync. Creating one costs 30 to 45 µs, a sync 250 µs: at 64 the sync adds 4 µs a
slot, and whoever has to wait for a batch waits about 3 ms. A larger batch saves little and makes that wait longer."""

SLOT_WAIT_SECONDS = 0.01
"""How long a taker who finds the pool empty, and others at work in it, waits before it looks whether it can make some itself.
Mostly it is told before of a batch; where the others only opened or removed slots, nobody tells it."""

OPEN_SLOTS = 128
"""Slots whose descriptors stand open before they are asked for. Opening one takes 3 µs, but then its taker has to get
the interpreter lock back, which beside a busy thread was measured at milliseconds for one in ten. The filler waits for
that lock as well, hence a supply for some 50 ms; it is an eighth of the usual limit of 1024 open files."""

BUFFERS_PER_WRITE = 1024
"""Buffers given to one write call: IOV_MAX of Linux and macOS. More of them are an EINVAL, so they are split."""

PROCESS_FOLDER_ATTEMPTS = 16
"""Names tried for a process folder. A try fails only when another process takes the new folder for a dead one
between its making and its locking; sixteen such accidents in a row are a defect, not bad luck."""

RESERVE_SIZE = 64 << 20
"""Bytes kept back for the finisher and the database when the disk is full: room for a checkpoint of the write-ahead
log and for the folders of everything that was answered and is not yet on its shelf."""

RESERVE_MARGIN = 64 << 20
"""Free bytes that must be left over after the reserve is made again, so that making it does not itself fill the
disk, and a disk at the brink does not see it made and released in turns."""

ZEROS_PER_WRITE = 1 << 20
"""Bytes written at once where a file system cannot reserve blocks and zeros have to do it."""

PROBE_SIZE = (64 << 10) + 1
"""Bytes the start-up probe writes: several pages and one byte more, so that an unaligned end is tried as well."""

ARCHIVE_ID_LENGTH_MAX = 64
"""Bytes read of an archive's identity file. A UUID and a line end are 37; what is longer is another file."""

PROBE_ATTEMPTS = 3
"""Times the probe makes its folder on the shelf. Another process that ends its own probe in between may remove it;
that it happens again and again means that something else removes it."""
