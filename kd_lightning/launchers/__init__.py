"""Where the jobs of a sweep run: a module per launcher, with ``conf/launcher/<name>.yaml``.

A launcher is a class with keyword-only arguments and one method,

    def run(self, jobs: Iterable[Job]) -> Iterator[Job]

which takes a job from ``jobs`` only when there is room for it (a search makes up the next one only
then), runs ``job.command()`` in a process of its own, and gives each job back when that process
has ended, however it ended. No job stops another one. Where a process ended badly and could not
say so itself, its launcher writes ``error.txt``, with one line on how it ended. What a launcher
needs beyond the package is imported where it is used, and asked for by a sentence.
"""
