"""The bounds of the routes in Orthanc's shape, of the metrics and of the web form of storage commitment, each with its reason."""

INSTANCE_BYTES_MAX = 8 << 30
"""A DICOM file that POST /instances takes: Orthanc's own bound of a request's body as shipped (MaximumRequestBodySizeMB)."""

INSTANCE_SECONDS = 600.0
"""For POST /instances, from the head of the request to the answer: a file of gigabytes over a slow line. A body that stands
still is given up long before."""

INDEX_RUN_ENTRIES = 16_384
"""Entries of the index of ids that are sorted and packed at once: until then they take ten times the memory, a megabyte and a
half. A million entries make 61 runs, and looking through all of them takes some 30 µs."""

INDEX_BEHIND_MAX = 20_000
"""Changes that the index takes note of one by one, some 25 µs each. After more than that since the last question it begins anew,
which costs nothing until an old id is asked for."""

INDEX_PAGE_ROWS = 1000
"""Rows that the index reads at a time, each page from a look of its own: some 5 ms, in which nothing else waits for it."""

HELD_NAMED_MAX = 5
"""Held instances that a refusal to remove names; it says how many there are."""

REMOVAL_SECONDS = 600.0
"""How long a DELETE may take: each file costs an unlink and each folder a sync, and a patient can have ten thousand."""

PAGE_RESOURCES = 500
"""Resources of a list that are read, and sent, at a time: about 300 kB with all their fields."""

CHANGES_PAGE = 100
"""Changes of a page where the request does not say, as Orthanc has it; and rows that are read at a time."""

CHANGES_PAGE_MAX = 1000
"""Changes of a page at most, whatever the request says: about 200 kB."""

CHANGES_PAGES_MAX = 10
"""Pages of rows that one request looks through: there may be many that are no changes to Orthanc, such as holds."""

STABLE_SECONDS = 60.0
"""A resource to which nothing came for this long is called stable, as Orthanc's StableAge has it as shipped."""

JOBS_LISTED_MAX = 1000
"""Finished jobs that GET /jobs lists, the newest ones; Orthanc remembers ten of them as shipped. All that are to be done are listed
beside them, up to as many again."""

FIRST_ATTEMPT_SECONDS = 30.0
"""How long POST /modalities/…/storage-commitment waits for the peer's answer to the request where neither it nor the peer has a
time limit. Then the transaction is Pending, as it is in the archive, and goes on."""

FIRST_ATTEMPT_SECONDS_MAX = 300.0
"""How long it waits at most, whatever time limit the request has."""

ECHO_SECONDS = 300.0
"""How long POST /modalities/…/echo may take: a modality's own limits hold, or the `Timeout` of the request; what is longer than
this is given up."""

SYNCHRONOUS_SECONDS_MAX = 3600.0
"""How long a synchronous POST /modalities/…/store waits for its job. Then the answer names the job, as an asynchronous one does,
and the job goes on."""

WAIT_POLL_SECONDS_MIN = 0.02
"""First pause between two looks whether a job is done; it doubles up to the next bound."""

WAIT_POLL_SECONDS_MAX = 0.5
"""Longest pause between two looks: each is one small query."""

WAITING_MAX = 64
"""Requests that wait for a job at once. One more is answered 503: they hold no thread, but each asks the database again and
again."""

RESOURCES_PER_REQUEST_MAX = 10_000
"""Resources that one request names; each may be a patient with thousands of instances."""

STORE_INSTANCES_MAX = 100_000
"""Instances of one store job or commitment request, as many as an N-ACTION of ours may name."""

COMMITMENT_BODY_BYTES_MAX = 64 << 20
"""Body of POST /dicom-web/commitment-requests/…: room for the 100,000 references that a request may have, with long UIDs in
XML, which takes some 600 bytes for each."""

COMMITMENT_DEPTH_MAX = 16
"""Elements or objects inside each other in such a body. The deepest form, study to instance, has twelve."""

COMMITMENT_VALUES_MAX = 1_000_000
"""Items and values of such a body in XML, as JSON_VALUES_MAX bounds those in JSON: a tree in which every instance has a study of
its own has 800,000 for 100,000 instances."""

COMMITMENT_VALUE_LETTERS_MAX = 256
"""Letters of a UID in such a body that are looked at: four times what one may have."""

COMMITMENT_SECONDS = 120.0
"""For such a request, from its head to its answer: the body may come over a slow line, and be written behind others."""

COMMITMENT_WAIT_SECONDS = 1.0
"""How long such a request is held for its result: that of some dozens of instances is there by then, and needs no second
request."""

FORM_RUNS_REMEMBERED_MAX = 100_000
"""Series of requests that named a tree which are remembered for the shape of their results: some 20 MB."""

COMMITMENT_RETRY_SECONDS = 5
"""What Retry-After says of a request that is being worked on: small ones are checked in less."""

METRICS_SECONDS_MAX = 0.05
"""How long a scrape reads rows that came since the last one. What is left is read by the next: after a night without scrapes the
counters catch up with some hundred thousand rows a time."""

METRICS_ROWS = 20_000
"""Rows that one query of a scrape counts: some 10 ms."""

METRICS_PENDING_LOOK = 5000
"""Transactions that a scrape looks at for whether their outcomes are certain by now, some 3 µs each; others have their turn at
the next one."""

METRICS_PEERS_MAX = 200
"""Peers that have a series of their own in the metrics; those that come later share one. Names come from the configuration and from
HTTP, so there is a bound."""

METRICS_CODES_MAX = 50
"""Statuses of answers to reports, and reasons of failures, that have a series of their own: peers give them, and may give any of 65536."""

METRICS_WAIT_SECONDS = 5.0
"""How long a scrape waits for another one. Where a disk hangs, one thread hangs with it, and those that come after do not: they tell what
is known without the database."""
