"""The background worker: tasks wait in a durable queue, and workers run them by the Supervisor.

`client` submits, follows, waits and cancels, from any process; `worker` takes jobs and does them;
`lease` says who is alive; `wire` is a job as JSON; `engine` has the names of the queue's engine,
which nothing else has. A job's id in the queue is the id of its record, `jobs/JOB_ID`.
"""
