"""Running groups of trials in processes of their own: `local` on this machine, `worker` in each process."""
