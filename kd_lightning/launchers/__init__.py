"""Launchers start the jobs of a sweep: on this machine or on a cluster.

Each launcher is a module of this package with a ``conf/launcher/<name>.yaml``. A launcher is a
class with keyword-only arguments and one method,

    def run(self, jobs: Iterable[Job]) -> Iterator[Job]

It takes a job from ``jobs`` only when it can start it, because a search chooses the next job only
then. It runs ``job.command()`` in a separate process, and yields the job when this process has
ended, whether it succeeded or not. A job that fails does not stop the others. If a process failed
and could not write ``error.txt`` itself, the launcher writes it, with one line on how the process
ended. Packages that only one launcher needs are imported where they are used; if one is missing,
the error message says how to install it.
"""
