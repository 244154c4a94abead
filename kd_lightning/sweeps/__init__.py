"""Many runs as one thing: what varies, which jobs that makes, and how far they are."""
