"""The bounds and fixed choices of the jobs, each with its reason. Sizes are bytes."""

ARGUMENTS_BYTES_MAX = 1 << 20
"""JSON of a job's arguments. They are read whole with every listing of a job; what is as long as a study belongs into
items, which are read by pages."""

CHECKPOINT_BYTES_MAX = 256 << 10
"""JSON of a checkpoint. It is written with each step of progress, thousands of times in a long job."""

ITEMS_MAX = 100_000
"""Items of a job: as many as one storage commitment request may name instances."""

TEXT_LENGTH_MAX = 1024
"""Characters of each single text of a job or item: names, lanes, subjects, peers. What is longer is refused."""

WORDS_LENGTH_MAX = 2000
"""Characters of words about a failure; the rest is cut off. A peer's own text may be in them."""

PRIORITY_MAX = 1000
"""Largest priority; the smallest is its negative. Orthanc's are small numbers around 0 too."""

PAGE_MAX = 1000
"""Jobs or items that one listing returns at most: about a megabyte of rows, some milliseconds."""

BULK_JOBS_MAX = 500
"""Jobs that one bulk action changes in one transaction: some ten milliseconds in which no other writer waits."""

BULK_ITEMS_MAX = 100_000
"""Items of the jobs that one bulk action deletes in one transaction, its first job aside."""

BACK_OFF_SECONDS_FIRST = 30.0
"""Pause after a first failure; it doubles (requirement 8: 30 s doubling to 10 min, then hourly)."""

BACK_OFF_SECONDS_DOUBLED = 600.0
"""Where the doubling ends. One pause is this long."""

BACK_OFF_SECONDS_LAST = 3600.0
"""Every pause after that one."""

BACK_OFF_JITTER = 0.1
"""Share by which a pause is longer by chance, so that what failed together is not tried together."""

RETRY_AHEAD_SECONDS_MAX = BACK_OFF_SECONDS_LAST * (1 + BACK_OFF_JITTER) + 60.0
"""How far ahead the next attempt of a job, or the end of a lane's block, may lie; a longer pause that a kind asks for is
cut to it. One that lies further ahead was written before the clock was set back, and is due."""

SLEEP_SECONDS_MAX = 86_400.0
"""How far ahead a pending job may be due; a longer sleep is cut to it, so its kind looks at the time itself. One that lies
further ahead was written before the clock was set back, and is due."""

EXCEPTIONS_MAX = 8
"""Attempts in a row that end with an exception before the job fails: with the back-off that is some three hours, in
which a passing fault of disk or memory passes."""

DEATHS_AT_ONCE_MAX = 5
"""So often in a row a job whose process died is due again at once: a server that was killed goes on where it was."""

DEATHS_MAX = 20
"""Deaths in a row before the job fails: it would seem that it kills its server, hourly by then."""

HEARTBEATS_PER_LEASE = 3
"""So often an owner counts its heartbeat up within the time of a lease: one lost to a slow disk takes no job away."""

LOOKS_PER_GAP = 3
"""So many times the pause between two looks count at most towards a lease: an observer that stood still itself for longer
does not know what others did meanwhile."""

OWNER_LOCK_SECONDS = 2.0
"""How long an engine tries to lock its own file at its start; others hold it for an instant to see whether it lives."""

OWNER_LOCK_POLL_SECONDS = 0.01
"""Between two such tries."""

ENGINE_THREADS = 1
"""Threads in which the engine itself asks the database; its turns are one after the other."""

JOB_THREADS_MAX = 16
"""Threads in which jobs read the disk and write rows, of all lanes together. Two cores and one disk gain nothing by more,
and work that waits for a lock must not hold up that of every other lane."""

LOST_THREADS_MAX = 32
"""Threads whose work did not end when it was told to. Each is replaced by a new one, up to this many: beyond, a kind is
broken in a way that more threads would only feed."""

LEFT_SECONDS = 1.0
"""How long the end of an engine waits for the coroutines of runs that it left to themselves: they have nothing to wait for."""

INTERRUPT_SECONDS = 30.0
"""How long a run may take to give way to a pause or cancellation: the longest time-out of a socket. After it the run is
left to itself; what it writes is refused."""

UPKEEP_SECONDS = 60.0
"""Between two looks at what is rare: a clock that was set back, jobs of kinds that nobody knows, retention."""

UNKNOWN_KIND_SECONDS = 86_400.0
"""How long a due job whose kind this version does not know waits for a process of the version that does."""

UNKNOWN_KIND_SEEN_SECONDS = 3600.0
"""How long an engine must have seen such jobs by its own monotonic clock before it fails one: a clock that was set
forward ends none."""

UNKNOWN_KIND_CANCELLED_SECONDS = 2 * UPKEEP_SECONDS
"""The same for one that was cancelled: time enough for a process that knows what its kind has to conclude."""

LANE_KEPT_SECONDS = 86_400.0
"""How long after its block has ended the failures of a lane are remembered: its next job has been tried long before."""

RETENTION_ROWS_MAX = 2000
"""Rows of jobs and items that retention deletes in one transaction: some ten milliseconds."""

REMOVED_JOBS_MAX = 400
"""Jobs that retention deletes in one transaction: fewer than VARIABLES_MAX of the database."""

SHARED_JOBS_LOOKED_AT_MAX = 10_000
"""Due jobs in the lane of the disk among which everybody has a turn, the first due ones: 20 ms at most, in which no other
writer waits long. Who comes behind more of them waits until they are fewer."""

ASKERS_REMEMBERED_MAX = 1000
"""Askers of whom it is remembered when they had their last turn in that lane: more peers than any archive has."""

FAILING_LANES_SHARE = 0.5
"""Share of the running places that lanes which failed last time may take together, so that any number of dead peers
leaves places for those that answer."""
