"""Lightning callbacks: what a run records and shows. They use only public names of a method."""
